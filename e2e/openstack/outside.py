#!/usr/bin/python3
"""Makes the cloud's external network and its subnet. Idempotent: what is there stays."""

import argparse
import ipaddress

import openstack


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cloud", required=True)
    parser.add_argument("--cidr", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--name", default="public")
    args = parser.parse_args()

    neutron = openstack.connect(cloud=args.cloud).network
    network = neutron.find_network(args.name) or neutron.create_network(
        name=args.name, is_router_external=True, provider_network_type="flat", provider_physical_network="physnet1",
    )
    if not neutron.find_subnet(args.name):
        addresses = ipaddress.ip_network(args.cidr)
        neutron.create_subnet(
            name=args.name, network_id=network.id, ip_version=4, cidr=args.cidr, gateway_ip=args.gateway, enable_dhcp=False,
            allocation_pools=[{"start": str(addresses[100]), "end": str(addresses[-10])}],
        )


if __name__ == "__main__":
    main()
