"""`python -m devstack.nats_configuration acme beta`: the accounts for a NATS server of your own with these tenants."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence

from devstack.nats_accounts import logins_of, make_accounts


def environment_variable(login: str) -> str:
    """Return the variable with the password of a login in the environment of a server of your own."""
    return f"OPTAIC_NATS_{re.sub('[^A-Za-z0-9]', '_', login).upper()}_PASSWORD"


def render(tenants: Sequence[str], *, by_certificate: bool = False) -> str:
    """Return the accounts as a file for a server of your own; passwords, if any, come from the server's environment."""
    if by_certificate:
        return f"accounts: {json.dumps(make_accounts(tenants, None), indent=2)}\n"
    variables = [environment_variable(login) for login in logins_of(tenants)]
    if len(set(variables)) < len(variables):
        raise ValueError(
            "two tenants differ in - and _ or in upper and lower case only: their passwords have one name"
        )
    text = json.dumps(make_accounts(tenants, lambda login: f"${environment_variable(login)}"), indent=2)
    return "accounts: " + re.sub(r'"(\$OPTAIC_\w+_PASSWORD)"', r"\1", text) + "\n"


def main(given: Sequence[str] | None = None) -> int:
    """Print the accounts for the tenants of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devstack.nats_configuration",
        description="Prints the accounts and logins for a NATS server of your own: redirect it to accounts.conf, and write "
        "`include accounts.conf` in the server's configuration. The variables OPTAIC_NATS_<LOGIN>_PASSWORD of the server's "
        "environment hold the passwords. To add a tenant, print again, then send the server SIGHUP.",
    )
    parser.add_argument("tenants", nargs="+", metavar="TENANT")
    parser.add_argument(
        "--certificates",
        action="store_true",
        help="logins have certificates in place of passwords; the section `tls` of the server needs `verify_and_map: true`",
    )
    arguments = parser.parse_args(given)
    try:
        sys.stdout.write(render(arguments.tenants, by_certificate=arguments.certificates))
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
