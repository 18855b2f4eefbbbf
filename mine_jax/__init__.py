"""Describes in words what drives each voxel of visual cortex, and tests it causally.

The stages, in the order data flows: data, features, encoder, attribution, description,
profile, validation, roi, report. Importing this package loads none of the heavy
optional libraries.
"""

__version__ = "0.1.0"
