"""Section [data]: where recordings and photos are, one model per kind of data set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mine_jax.config.sections import (
    Count,
    File,
    Fraction,
    Names,
    Section,
    Shape,
    Share,
    TestImages,
    UnitName,
    by_kind,
)


class _Data(Section):
    """Keys of every kind of data."""

    subject: str = "subj01"
    """Name of the subject, as in the file names of the data set. [ours]"""
    unit_name: UnitName = "voxel"
    """What pages call one column of the responses, for instance "neuron"; changes no result. [ours]"""
    zscore: Literal["session", "run", "none"] = "session"
    """Trials within which the responses of a voxel are z-scored; "none" leaves them as they are. [parent]"""
    test: TestImages = "shared"
    """Test images: a share of all, "shared" for those that the data set sets apart, or a file of image ids. [ours]"""
    val: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Validation images, which choose encoders and end their fits: a share of the images that are no test. [ours]"""
    min_noise_ceiling: Fraction = 0.0
    """Voxels whose noise ceiling (share of variance) is lower are not fitted: status "low_ceiling". [ours]"""
    beta_scale: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """What stored betas are divided by; "auto" is 300 for 16-bit integers without a scale factor, else 1. [ours]"""
    on_missing: Literal["error", "drop"] = "error"
    """What happens to images with responses but without photo or image-tokens. [ours]"""
    permute: bool = False
    """Control: exchanges the responses of images within each split, so that nothing should be found. [ours]"""

    @property
    def has_photos(self) -> bool:
        """Whether the images can be read; data sets without a key for them bring their own."""
        return getattr(self, "images", "") is not None


class PhotosConfig(_Data):
    """Keys of data whose photos lie in a folder."""

    images: File = None
    """Folder or ZIP of the photos; without it only precomputed image-tokens can be used."""
    index_base: Literal[0, 1] | None = None
    """What numeric image ids count from, in all lists of images; not needed where ids are names."""
    max_pixels: Count = 50_000_000
    """Photos with more pixels are refused before they are decoded. [ours]"""


class FolderConfig(PhotosConfig):
    """Your own photos and responses. In names `*` stands for sessions, `{hemi}` for both hemispheres."""

    kind: Literal["folder"] = "folder"
    responses: File = None
    """Responses [N images or trials, V voxels] as .npy, or one NIfTI, MGH, GIFTI or CIFTI series per session."""
    image_ids: File = None
    """Text file with the image of each row of `responses`, one id per line: a file name of a photo, or a number."""
    trials: File = None
    """Table with image_id, session and run of each row of `responses`; rows are then trials, averaged by image."""
    noise_ceiling: File = None
    """Known noise ceilings [V] of averages, as .npy: shares of the variance of a row, NaN where not known."""
    mask: File = None
    """Volume of 0 and 1 in the space of a series: which voxels are read."""
    rois: File = None
    """Areas: a table (voxel_id, roi, optionally i, j, k), or an atlas in the space of a series."""
    roi_labels: File = None
    """Code and name of the areas of an atlas; without it those in the atlas, or in the .tsv beside it."""
    sphere: File = None
    """Where vertices lie, for tests of areas: surf/{hemi}.sphere of FreeSurfer, or {hemi}.sphere.surf.gii."""


class BidsConfig(PhotosConfig):
    """Single-trial betas in BIDS derivatives; the entities choose files where several could be meant."""

    kind: Literal["bids"] = "bids"
    root: File = None
    """Folder of the derivatives: holds sub-*."""
    subject: str = "01"
    """Label of the subject, without "sub-". [ours]"""
    events: File = None
    """Data set with the tables of trials; without it they are sought in `root`, then in the data set around it."""
    image_column: str | None = None
    """Column of these tables that names the image; without it the first of the usual ones, such as stim_file."""
    task: str | None = None
    """Entity task of the files to read."""
    space: str | None = None
    """Entity space of the files to read."""
    desc: str | None = None
    """Entity desc of the files to read."""
    stat: str | None = None
    """Entity stat of the files to read."""
    suffix: str | None = None
    """Last part of the names of files to read: "betas", "statmap", ..."""
    sessions: Count | None = None
    """Reads the first so many sessions; without it all that are found."""
    mask: File = None
    """Volume of 0 and 1; without it the brain mask in the space of the betas, or the voxels of the atlas."""
    rois: File = None
    """Areas: an atlas in the space of the betas, or a table (voxel_id, roi)."""
    roi_labels: File = None
    """Code and name of the areas of an atlas."""
    sphere: File = None
    """Where vertices lie, for tests of areas: surf/{hemi}.sphere of FreeSurfer, or {hemi}.sphere.surf.gii."""


class LaionConfig(PhotosConfig):
    """A subject of LAION-fMRI, in its own file layout."""

    kind: Literal["laion_fmri"] = "laion_fmri"
    root: File = None
    """Folder that holds derivatives/glmsingle-tedana, derivatives/rois and stimuli."""
    subject: str = "sub-01"
    """Name of the subject: sub-01, sub-03, ... [ours]"""
    roi: Names = ()
    """Reads the voxels of any of these areas, "FFA1" or a category such as "face"; [] for all with a model. [ours]"""
    sessions: Count | None = None
    """Reads the first so many sessions; without it all that are found."""

    @property
    def has_photos(self) -> bool:
        """Whether the images can be read: without `images`, from the data set's own file."""
        return True


class AlgonautsConfig(_Data):
    """A subject of the Algonauts 2023 challenge; responses are averages over repeats."""

    kind: Literal["algonauts2023"] = "algonauts2023"
    root: File = None
    """Folder that holds subj01 to subj08."""
    roi: Names = ()
    """Reads the vertices of any of these areas; [] for all. [ours]"""
    sphere: File = None
    """Where vertices lie, for tests of areas: surf/{hemi}.sphere of FreeSurfer's subject fsaverage."""


class ThingsConfig(PhotosConfig):
    """A subject of THINGS-fMRI."""

    kind: Literal["things"] = "things"
    root: File = None
    """Folder that holds betas_csv or betas_vol, and brainmasks."""
    subject: str = "01"
    """Label of the subject, without "sub-". [ours]"""
    format: Literal["tables", "volumes"] = "tables"
    """Reads the tables in betas_csv, or the NIfTI files in betas_vol. [ours]"""
    roi: Names = ()
    """Reads the voxels of any of these areas of the voxel table; [] for all. [ours]"""
    image_column: str | None = None
    """Column of the tables beside volumes that names the image; without it the first of the usual ones."""


class Bold5000Config(PhotosConfig):
    """A subject of BOLD5000."""

    kind: Literal["bold5000"] = "bold5000"
    root: File = None
    """Folder that holds the unpacked release."""
    subject: str = "CSI1"
    """Name of the subject: CSI1 to CSI4. [ours]"""
    release: Literal[1, 2] = 2
    """Release of the betas; 2 are those of GLMsingle. [ours]"""
    format: Literal["rois", "volumes"] = "rois"
    """Reads the arrays of areas, or the volumes of sessions (release 2 only). [ours]"""
    beta_version: str = "TYPED-FITHRF-GLMDENOISE-RR"
    """Version of the betas in the file names of release 2. [ours]"""
    roi: Names = ()
    """Reads the voxels of any of these areas, "PPA" or "LHPPA"; [] for all. For the format "rois". [ours]"""


class _NsdLayout(_Data):
    """Keys of data in the file layout of the Natural Scenes Dataset."""

    root: File = None
    """Folder that holds nsddata, nsddata_betas and nsddata_stimuli."""
    space: str = "func1pt8mm"
    """Space of the betas: "func1pt8mm", "func1mm", or a surface, "fsaverage" or "nativesurface". [ours]"""
    beta_version: str = "betas_fithrf_GLMdenoise_RR"
    """Folder of the betas below the space. [ours]"""
    beta_format: Literal["auto", "hdf5", "nifti", "mgh"] = "auto"
    """Files of the betas; "auto" takes those that are there. [ours]"""
    roi: Names = ("nsdgeneral",)
    """Reads the voxels of any of these areas; [] for every voxel with data. [ours]"""
    sessions: Annotated[int, Field(ge=1, le=40)] | None = None
    """Reads the first so many sessions; without it all that are found."""
    axis_order: Literal["auto", "xyzt", "tzyx"] = "auto"
    """Order of the axes in HDF5 betas; "auto" finds it by the shape of the areas. [ours]"""


class NsdConfig(_NsdLayout):
    """A subject of the Natural Scenes Dataset."""

    kind: Literal["nsd"] = "nsd"
    sphere: File = None
    """Where vertices lie, for tests of areas: {hemi}.sphere; without it those in nsddata/freesurfer/*/surf."""


class PhantomConfig(_NsdLayout):
    """A simulated subject; keys beyond those of "nsd" say what to write where `root` does not hold it yet."""

    kind: Literal["phantom"] = "phantom"
    n_images: Annotated[int, Field(ge=20)] = 2500
    """Images of the subject. [ours]"""
    n_shared: Annotated[int, Field(ge=4)] = 400
    """Images that all subjects see, which are the test images. [ours]"""
    n_repeats: Annotated[int, Field(ge=1, le=3)] = 3
    """Trials of each image. [ours]"""
    n_repeats_shared: Annotated[int, Field(ge=1, le=20)] | None = None
    """Trials of each shared image; without it as many as of the others."""
    ceiling: Share | tuple[Share, Share] = 0.6
    """Noise ceilings of voxels (share of variance): their mean, or the ends of an even spread. [ours]"""
    shape: Shape = (24, 24, 18)
    """Voxels along the axes i, j, k. [ours]"""


DataConfig = Annotated[
    FolderConfig
    | BidsConfig
    | NsdConfig
    | LaionConfig
    | ThingsConfig
    | AlgonautsConfig
    | Bold5000Config
    | PhantomConfig,
    *by_kind(FolderConfig),
]
