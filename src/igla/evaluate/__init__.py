"""How good a model is: metrics, calibration, intervals, a baseline to beat, reports."""
