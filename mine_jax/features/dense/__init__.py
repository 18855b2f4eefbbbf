"""What is done to image-tokens between the model and the store, fitted on training images alone."""
