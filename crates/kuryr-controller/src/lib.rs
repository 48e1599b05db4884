//! The controller: index, work queue, reconcilers, executors.
