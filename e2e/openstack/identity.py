#!/usr/bin/python3
"""Fills Keystone, in one process (the client takes a second for each call), and writes clouds.yaml.

Idempotent: what is there stays. Passwords are read from files and go nowhere but to Keystone and clouds.yaml.
"""

import argparse
import json
import os
import pathlib
import secrets

from openstack import connection


def ensure(found, create):
    return found or create()


def fill(identity, args, password):
    admin_role = identity.find_role("admin", ignore_missing=False)

    def user(name, project, secret):
        project = ensure(identity.find_project(project), lambda: identity.create_project(name=project, domain_id="default"))
        account = ensure(
            identity.find_user(name, domain_id="default"),
            lambda: identity.create_user(name=name, domain_id="default", default_project_id=project.id, password=secret),
        )
        identity.assign_project_role_to_user(project, account, admin_role)
        return project, account

    for name in ("neutron", "octavia"):
        user(name, "service", password("service"))
    # Kuryr binds ports to hosts (binding:host_id), which Neutron's default policy keeps for the role admin.
    user("kuryr", "kuryr", password("kuryr"))

    for name, kind, url in (("neutron", "network", args.neutron), ("octavia", "load-balancer", args.octavia)):
        service = ensure(identity.find_service(name), lambda: identity.create_service(name=name, type=kind))
        there = {endpoint.interface: endpoint for endpoint in identity.endpoints(service_id=service.id)}
        for interface in ("public", "internal", "admin"):
            if interface not in there:
                identity.create_endpoint(service_id=service.id, interface=interface, url=url, region_id="RegionOne")
            elif there[interface].url != url:
                identity.update_endpoint(there[interface], url=url)


def application_credential(identity, user_id, store):
    """The secret of an application credential can be read only once: it is kept, and the credential made anew without it."""
    kept = json.loads(store.read_text()) if store.exists() else None
    there = [c for c in identity.application_credentials(user_id) if c.name == "kuryr"]
    if kept and any(c.id == kept["id"] for c in there):
        return kept
    for credential in there:
        identity.delete_application_credential(user_id, credential.id)
    kept = {"secret": secrets.token_urlsafe(24)}
    kept["id"] = identity.create_application_credential(user_id, name="kuryr", secret=kept["secret"]).id
    write(store, kept)
    return kept


def write(path, data):
    """JSON is YAML, too; replaced as a whole, readable by root only."""
    new = path.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(data, file, indent=2)
        file.write("\n")
    new.rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("secrets", type=pathlib.Path)
    parser.add_argument("clouds", type=pathlib.Path)
    for service in ("keystone", "neutron", "octavia"):
        parser.add_argument("--" + service, required=True, metavar="URL")
    args = parser.parse_args()

    def password(name):
        return (args.secrets / name).read_text().strip()

    def account(name):
        return {
            "auth": {
                "auth_url": args.keystone, "username": name, "password": password(name), "project_name": name,
                "user_domain_name": "Default", "project_domain_name": "Default",
            },
            "region_name": "RegionOne", "identity_api_version": 3, "interface": "public",
        }

    def connect(cloud):
        return connection.Connection(**cloud)

    clouds = {"admin": account("admin"), "kuryr": account("kuryr")}
    fill(connect(clouds["admin"]).identity, args, password)
    kuryr = connect(clouds["kuryr"])
    credential = application_credential(kuryr.identity, kuryr.current_user_id, args.secrets / "appcred.json")
    clouds["kuryr-appcred"] = {
        "auth_type": "v3applicationcredential",
        "auth": {
            "auth_url": args.keystone,
            "application_credential_id": credential["id"], "application_credential_secret": credential["secret"],
        },
        "region_name": "RegionOne", "identity_api_version": 3, "interface": "public",
    }
    write(args.clouds, {"clouds": clouds})


if __name__ == "__main__":
    main()
