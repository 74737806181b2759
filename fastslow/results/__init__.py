"""Readers of run folders: report, compare, ablation, deploy. No model is loaded to report."""
