"""The parts of benchmarks/train_minilm.py; those named *_worker run in processes of their own."""
