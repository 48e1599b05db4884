//! The embedded Kubernetes: an API server, a tiny scheduler and a kubelet that runs the real `kuryr-cni`.
