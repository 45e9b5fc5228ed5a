"""What runs models, whoever asks: ONNX sessions, encoders of images, weights that packages ship, and where they lie."""
