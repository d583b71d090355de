"""The command line `whatsapp-egress`: a client of the control API, and two commands that try the parts."""
