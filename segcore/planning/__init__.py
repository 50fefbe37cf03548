"""Planning of a training: measurements that suggest its settings."""
