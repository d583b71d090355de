"""What people see of the service; reads state, changes none."""
