"""Measures of feature tables that are not accuracies of heads; one file a measure."""
