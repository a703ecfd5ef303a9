"""What of a message may an operator's screen show? The same as everywhere: see `shared.masking`."""

from shared.masking import MASK, is_card_number, mask_named, mask_text

__all__ = ["MASK", "is_card_number", "mask_named", "mask_text"]
