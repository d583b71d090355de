"""`python -m whatsapp_egress.cli`."""

from whatsapp_egress.cli.main import main

main(prog_name="whatsapp-egress")
