"""Operations on packed sequences; they know nothing of models, files or HTTP."""
