"""A Whisper with random weights: everything that the real one does, in milliseconds and about nothing."""

import torch
from whisper.model import ModelDimensions, Whisper


def tiny_model(*, audio_context=50, text_context=64, seed=0):
    """Two layers of 64 with openai-whisper's multilingual vocabulary; `audio_context` of 50 takes 100 frames of mel."""
    torch.manual_seed(seed)
    model = Whisper(ModelDimensions(80, audio_context, 64, 2, 2, 51865, text_context, 64, 2, 2)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln" not in name:
                # Wide enough that the next token is no near-tie, which rounding alone would decide.
                parameter.normal_(0, 0.3)
    return model
