"The cortex, figures with their numbers, and pages."
