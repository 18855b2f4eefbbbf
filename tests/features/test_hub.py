"""Models by hub id, from a local server that plays the hub."""

import hashlib
import json
import logging
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import PIL.Image
import pytest

import mine_jax
from mine_jax import artifacts, cli, config, run
from mine_jax.config import ClipConfig
from mine_jax.errors import MissingInputError, WeightsError
from mine_jax.features import fetched_files, hub_folder, load_backbone, planned_tokens
from mine_jax.features.ports.clip.backbone import load
from mine_jax.run import graph
from mine_jax.run.checks import inputs

MODEL, REVISION = "someone/tiny-clip", "0123456789abcdef0123456789abcdef01234567"
CHOSEN = ClipConfig(model=MODEL, revision=REVISION)
ALLOWED = CHOSEN.model_copy(update={"allow_download": True})


class Hub(ThreadingHTTPServer):
    """Serves one commit of one model: listing, headers and contents of its files.

    Attributes:
        files: name -> content.
        asked: (method, path) of every request.
        breaks: names of files of which half arrives.
    """

    daemon_threads = True

    def __init__(self):
        self.files, self.asked, self.breaks = {}, [], set()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        self.server.asked.append((self.command, self.path))
        path = self.path.partition("?")[0].rstrip("/")
        if path in (f"/api/models/{MODEL}/tree/{REVISION}", f"/api/models/{MODEL}/revision/{REVISION}"):
            self.send(json.dumps(listing(self.server.files, tree="/tree/" in path)).encode(), {}, body=body)
        elif path.startswith(f"/{MODEL}/resolve/{REVISION}/") and path.rpartition("/")[2] in self.server.files:
            self.send_file(path.partition(f"/resolve/{REVISION}/")[2], body=body)
        else:
            code = "RevisionNotFound" if path.startswith((f"/api/models/{MODEL}/", f"/{MODEL}/")) else "RepoNotFound"
            self.send(b"", {"X-Error-Code": code}, body=body, status=404)

    def send_file(self, name, *, body):
        content = self.server.files[name]
        start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        headers = {"ETag": f'"{etag(name, content)}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(content[start:], headers, body=body, status=206 if start else 200, broken=name in self.server.breaks)

    def send(self, content, headers, *, body, status=200, broken=False):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content)), "Content-Type": "text/plain"}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if broken else content)
        if broken and body:
            self.close_connection = True


def etag(name, content):
    """As the hub: sha256 of what is kept outside of git, else what git calls the file."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def listing(files, *, tree):
    entries = [{"type": "file", "path": n, "size": len(c), "oid": etag(n, c)[:40]} for n, c in files.items()]
    for entry in entries:
        if entry["path"].endswith(".safetensors"):
            digest = etag(entry["path"], files[entry["path"]])
            entry["lfs"] = {"oid": digest, "size": entry["size"], "pointerSize": 134}
    return entries if tree else {"id": MODEL, "sha": REVISION, "siblings": [{"rfilename": n} for n in files]}


@pytest.fixture
def hub(_checkpoint, tmp_path, monkeypatch):
    """The server with a tiny CLIP, pickles and other formats, and an empty cache."""
    from huggingface_hub import constants

    server = Hub()
    server.files = {path.name: path.read_bytes() for path in _checkpoint.iterdir()}
    server.files |= {"pytorch_model.bin": b"pickle", "modeling_clip.py": b"raise SystemExit", "onnx/model.json": b"{}"}
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    # what follows an interruption waits seconds before it asks again
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


def test_downloads_once_and_then_needs_no_server(hub, _checkpoint, words):
    pixels = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    assert planned_tokens(ALLOWED) is None and not hub.asked
    backbone = load_backbone(ALLOWED)
    rows, columns = backbone.grid
    assert planned_tokens(CHOSEN) == (rows * columns, backbone.width)
    assert backbone.name == "someone/tiny-clip@01234567"
    # the same model as from its folder
    local = load(_checkpoint)
    assert backbone.sha256 == local.sha256 and backbone.lens_defaults() == local.lens_defaults()
    np.testing.assert_array_equal(backbone.encode(pixels)[-1], local.encode(pixels)[-1])
    folder = hub_folder(CHOSEN)
    wanted = {path.name for path in _checkpoint.iterdir() if path.suffix in (".json", ".txt", ".safetensors")}
    assert {path.name for path in folder.iterdir()} == wanted
    assert not any(name in path for _, path in hub.asked for name in ("pytorch_model.bin", ".py", "onnx"))
    assert fetched_files(folder) == {name: artifacts.sha256(_checkpoint / name) for name in sorted(wanted)}
    hub.asked.clear()
    load_backbone(ALLOWED)
    assert not hub.asked
    hub.shutdown()
    hub.server_close()
    for settings in (CHOSEN, ALLOWED):
        again = load_backbone(settings)
        assert again.sha256 == local.sha256
    # tokenizers ask nothing either
    expected = local.lens(words, ("a photo of a {}",)).unembedding
    np.testing.assert_array_equal(again.lens(words, ("a photo of a {}",)).unembedding, expected)
    assert not hub.asked


def test_what_other_programs_left_in_the_cache_is_made_whole(hub, _checkpoint):
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "model.safetensors"):
        hf_hub_download(MODEL, name, revision=REVISION, endpoint=hub.url)
    load_backbone(ALLOWED)
    wanted = {path.name for path in _checkpoint.iterdir() if path.suffix in (".json", ".txt", ".safetensors")}
    assert {path.name for path in hub_folder(CHOSEN).iterdir()} == wanted


def test_nothing_is_asked_without_leave(hub):
    with pytest.raises(
        MissingInputError, match=rf"is not in the local cache.*hf download {MODEL} --revision {REVISION}"
    ):
        load_backbone(CHOSEN)
    assert not hub.asked


def test_an_id_without_a_revision_says_what_to_set(hub):
    with pytest.raises(MissingInputError, match=r"OWNER/NAME of the Hugging Face hub set `features\.revision`"):
        load_backbone(ClipConfig(model=MODEL))
    assert not hub.asked


def test_offline_flags_of_the_environment_win(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingInputError, match=r"the environment forbids to fetch it: unset HF_HUB_OFFLINE"):
        load_backbone(ALLOWED)
    assert not hub.asked


@pytest.mark.parametrize("change", [{"model": "someone/else"}, {"revision": "f" * 40}])
def test_a_model_that_the_hub_does_not_have(hub, change):
    with pytest.raises(MissingInputError, match=r"the hub shows no .*Are the id and the commit right"):
        load_backbone(ALLOWED.model_copy(update=change))


def test_pickles_alone(hub):
    del hub.files["model.safetensors"]
    with pytest.raises(WeightsError, match=r"has no \.safetensors file\. Pickled weights are never read"):
        load_backbone(ALLOWED)
    assert not any("pytorch_model.bin" in path for _, path in hub.asked)


def test_an_interrupted_download_goes_on(hub, _checkpoint):
    hub.breaks = {"model.safetensors"}
    # halves of halves arrive until what is left rounds to nothing: then it gives up
    with pytest.raises(MissingInputError, match=r"could not be fetched .*the same command goes on"):
        load_backbone(ALLOWED)
    with pytest.raises(MissingInputError, match="is not whole in the local cache"):
        load_backbone(CHOSEN)
    hub.breaks, hub.asked = set(), []
    assert load_backbone(ALLOWED).sha256 == load(_checkpoint).sha256


def test_a_damaged_blob_is_found(hub):
    load_backbone(ALLOWED)
    blob = (hub_folder(CHOSEN) / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(WeightsError, match="its sha256 is not that of the hub"):
        load_backbone(CHOSEN)


def test_a_folder_of_that_name_wins(hub, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "someone" / "tiny-clip")
    values = {"features": {"model": MODEL, "revision": REVISION, "allow_download": True}}
    read = config.from_dict(values, base=tmp_path).features
    assert read.model == str(tmp_path / "someone" / "tiny-clip") and hub_folder(read) is None
    assert load_backbone(read).name == "tiny-clip" and not hub.asked
    elsewhere = config.from_dict(values, base=tmp_path / "someone").features
    assert (elsewhere.model, config.paths(elsewhere)) == (MODEL, {}) and hub_folder(elsewhere) is not None


@pytest.fixture
def configured(tmp_path):
    """Makes a configuration for 12 photos whose model is that of the hub."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(12):
        photo = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        PIL.Image.fromarray(photo).save(tmp_path / "photos" / f"{i:02d}.png")
    np.save(tmp_path / "responses.npy", rng.standard_normal((12, 2)).astype(np.float32))
    (tmp_path / "ids.txt").write_text("".join(f"{i:02d}\n" for i in range(12)))

    def configure(**given):
        data = {"images": "photos", "responses": "responses.npy", "image_ids": "ids.txt", "test": 0.25}
        of_hub = {"model": MODEL, "revision": REVISION, "low_level": False, **given}
        return config.from_dict({"data": data, "features": of_hub, "attribution": {"k": 4}}, base=tmp_path)

    return configure


def test_check_opens_such_a_model(hub, configured, tmp_path):
    settings, source = configured(allow_download=True), tmp_path / "my.toml"
    source.write_text("")
    findings = inputs.check(settings, source=source, freeze=True)
    assert "someone/tiny-clip@01234567: 2 layers, 16 tokens x 24" in findings
    # its commit pins it: the list, which is for every machine, has the user's files alone
    listed = (tmp_path / "my.sha256").read_text()
    assert "responses.npy" in listed and "model.safetensors" not in listed
    inputs.check(settings, source=source)


def test_a_run_records_what_it_fetched(hub, configured, tmp_path, caplog):
    out = tmp_path / "run"
    with caplog.at_level(logging.INFO, logger="mine_jax"):
        record = run.execute(configured(allow_download=True), out, graph.STEPS, until="features")
    assert f"fetching {MODEL} at revision {REVISION}" in caplog.text
    recorded = record["stages"]["features"]["summary"]["hub"]
    assert (recorded["id"], recorded["revision"]) == (MODEL, REVISION)
    assert recorded["sha256"]["model.safetensors"] == hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    folder = hub_folder(CHOSEN)
    # what a port reads, and nothing else that other programs leave there
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    names = {name for name in record["inputs"] if str(folder) in name}
    assert names == {str(folder / name) for name in recorded["sha256"]}
    # leave to download changes no result; other files and another commit do
    for allowed in (True, False):
        assert run.stale(configured(allow_download=allowed), out, graph.STEPS)["features"] is None
    assert "revision" in run.stale(configured(revision="e" * 40), out, graph.STEPS)["features"]
    (folder / "config.json").unlink()
    (folder / "config.json").write_bytes(hub.files["config.json"] + b" ")
    assert "input config.json changed" in run.stale(configured(), out, graph.STEPS)["features"]


def test_only_leave_to_download_lets_the_command_line_ask(monkeypatch, configured):
    monkeypatch.setattr(cli, "_set_here", set())
    for allowed in (True, False):
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
        cli.stay_offline(configured(allow_download=allowed))
        assert ("HF_HUB_OFFLINE" in os.environ) == ("TRANSFORMERS_OFFLINE" in os.environ) == (not allowed)
    # every command begins offline; the configuration lifts that, but not what the environment says
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(cli, "_set_here", set())
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    cli.stay_offline()
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
    cli.stay_offline(configured(allow_download=True))
    assert "HF_HUB_OFFLINE" not in os.environ and os.environ["TRANSFORMERS_OFFLINE"] == "1"


def test_commands_without_a_configuration_are_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("sys.argv", ["mine-jax", "query", "nowhere", "face"])
    with pytest.raises(SystemExit):
        cli.command_line()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_published_folder_never_fetches(hub, tmp_path):
    described = {"schema": 1, "attribution": {}, "description": {}, "run": {}}
    described["features"] = {"model": MODEL, "revision": REVISION, "allow_download": True}
    (tmp_path / "config.json").write_text(json.dumps(described))
    published = mine_jax.load(tmp_path)
    assert published.config.features == CHOSEN
    with pytest.raises(MissingInputError, match=rf"hf download {MODEL} --revision {REVISION}; .*model=") as caught:
        published.backbone()
    assert "allow_download" not in str(caught.value) and not hub.asked
