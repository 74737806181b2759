"""Ways to propose texts: demonstrations, GEPA, SIMBA, MIPRO."""
