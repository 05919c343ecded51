"""The Keras backend of automl-tl."""
