"""Fine-tuning of a person-search detector, from pre-training or from a trained detector."""
