//! Pure functions from desired and observed state to plans.
