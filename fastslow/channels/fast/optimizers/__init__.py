"""Ways to propose prompts: demonstrations, GEPA, SIMBA, MIPRO."""
