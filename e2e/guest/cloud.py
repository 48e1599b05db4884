#!/usr/bin/python3
"""What virtual machines have in the cloud: a network on Kuryr's router, and for each a port and a trunk on it. One whose pods share
its port has no trunk, and its port is on the network of the pods.

    cloud.py --cloud CLOUD up --host HOST --router NAME --cidr CIDR --pods NETWORK MACHINE...
                                   MACHINE is NAME, or NAME=macvlan or NAME=ipvlan; prints them as JSON; what is there stays
    cloud.py --cloud CLOUD down    takes all of it away; absent is fine
"""

import argparse
import ipaddress
import json

import openstack

# The name of everything that is there once; what a machine has is named after it, with this in front.
NAME = "kuryr-e2e-machines"


def names(machine):
    return f"{NAME}-{machine}"


def common(neutron, router_name, cidr):
    """The network, its subnet on the router, and a security group that lets everything in."""
    network = neutron.find_network(NAME) or neutron.create_network(name=NAME)
    subnet = neutron.find_subnet(NAME)
    if not subnet:
        subnet = neutron.create_subnet(name=NAME, network_id=network.id, ip_version=4, cidr=cidr)
        router = neutron.find_router(router_name, ignore_missing=False)
        neutron.add_interface_to_router(router, subnet_id=subnet.id)
    group = neutron.find_security_group(NAME)
    if not group:
        group = neutron.create_security_group(name=NAME)
        neutron.create_security_group_rule(security_group_id=group.id, direction="ingress", ethertype="IPv4")
    return network, group


def machine(neutron, said, host, pods, network, group):
    name, _, kind = said.partition("=")
    # One that is there is named without its kind.
    port = neutron.find_port(names(name)) or neutron.create_port(
        name=names(name), network_id=pods if kind else network.id, security_groups=[group.id], device_owner="compute:nova",
        binding_host_id=host,
    )
    if port.network_id == network.id:
        neutron.find_trunk(names(name)) or neutron.create_trunk(name=names(name), port_id=port.id)
    network, subnet = neutron.get_network(port.network_id), neutron.get_subnet(port.fixed_ips[0]["subnet_id"])
    return {
        "name": name,
        "port": port.id,
        "mac": port.mac_address,
        "address": port.fixed_ips[0]["ip_address"],
        "prefix": ipaddress.ip_network(subnet.cidr).prefixlen,
        "gateway": subnet.gateway_ip,
        "mtu": network.mtu,
    }


def up(neutron, args):
    there = common(neutron, args.router, args.cidr)
    pods = neutron.find_network(args.pods, ignore_missing=False).id
    print(json.dumps([machine(neutron, said, args.host, pods, *there) for said in args.machines]))


def down(neutron, _):
    for trunk in neutron.trunks():
        if trunk.name.startswith(NAME):
            neutron.delete_trunk(trunk)
    for port in neutron.ports():
        if port.name.startswith(NAME):
            neutron.delete_port(port)
    network = neutron.find_network(NAME)
    if network:
        for port in neutron.ports(network_id=network.id, device_owner="network:router_interface"):
            neutron.remove_interface_from_router(port.device_id, port_id=port.id)
        neutron.delete_network(network)
    group = neutron.find_security_group(NAME)
    if group:
        neutron.delete_security_group(group)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cloud", required=True)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("up")
    verb.add_argument("--host", required=True)
    verb.add_argument("--router", required=True)
    verb.add_argument("--cidr", required=True)
    verb.add_argument("--pods", required=True)
    verb.add_argument("machines", nargs="+")
    verb.set_defaults(work=up)
    verbs.add_parser("down").set_defaults(work=down)
    args = parser.parse_args()
    args.work(openstack.connect(cloud=args.cloud).network, args)


if __name__ == "__main__":
    main()
