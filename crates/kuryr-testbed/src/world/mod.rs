//! A world is a cloud, a Kubernetes and some nodes with Kuryr on them; the scenarios run in the embedded and in the real one.
