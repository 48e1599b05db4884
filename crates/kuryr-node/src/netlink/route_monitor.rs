//! Being told when routes come and go.

use super::{
    error::Error,
    monitor::{receive, subscribe, wait},
    route::{self, Route},
    socket::{Socket, messages},
};
use std::{net::Ipv6Addr, os::unix::net, time::Duration};
use tokio::net::UnixDatagram;

/// The groups of route events of both families, as bits.
const RTMGRP_ROUTES: u32 = 0x40 | 0x400;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const DOING: &str = "watch routes";

/// What happened to a unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteEvent {
    /// It was added, or another one was put into its place.
    Added(Route),
    /// It was removed. The kernel does not say so of routes that go with their link.
    Removed(Route),
    /// Events came faster than they were read and some are lost: list the routes again.
    Lost,
}

/// A subscription made in a namespace's thread, to be used from a tokio task.
#[derive(Debug)]
pub struct RouteSubscription(net::UnixDatagram);

impl RouteSubscription {
    /// Subscribes to the route events of the calling thread's namespace. Nothing that happens from here on is missed.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        Ok(Self(subscribe(RTMGRP_ROUTES, DOING)?))
    }

    /// Blocks until packets to these addresses of the link of that index are taken in. An IPv6 address that was added is
    /// there at once; that packets to it are for this namespace, the kernel notes a little later, when it finds time, and
    /// drops them until then. False: not within `patience`. `socket` is of the same namespace, the subscription older
    /// than the addresses.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn wait_local(
        self,
        socket: &mut Socket,
        index: u32,
        addresses: &[Ipv6Addr],
        patience: Duration,
    ) -> Result<bool, Error> {
        wait(&self.0, "wait for addresses", patience, || {
            let local = socket.local_v6(index)?;
            Ok(addresses.iter().all(|address| local.contains(address)).then_some(true))
        })
    }
}

/// A subscription to the route events of one namespace.
#[derive(Debug)]
pub struct RouteMonitor {
    // Any datagram socket can be read as one of the Unix family.
    socket: UnixDatagram,
    buffer: Vec<u8>,
}

impl RouteMonitor {
    /// Reads a subscription from the current tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot take the socket.
    pub fn new(subscription: RouteSubscription) -> Result<Self, Error> {
        let socket =
            UnixDatagram::from_std(subscription.0).map_err(|source| Error::Socket { doing: DOING.into(), source })?;
        Ok(Self { socket, buffer: Vec::new() })
    }

    /// Waits for the next events. May be dropped while it waits: no event is lost by that.
    ///
    /// # Errors
    /// The socket failed for good.
    pub async fn next(&mut self) -> Result<Vec<RouteEvent>, Error> {
        loop {
            let events = match receive(&self.socket, &mut self.buffer, DOING).await? {
                Some(datagram) => events(datagram),
                None => vec![RouteEvent::Lost],
            };
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

fn events(datagram: &[u8]) -> Vec<RouteEvent> {
    let mut events = Vec::new();
    for message in messages(datagram) {
        let Ok(message) = message else { return vec![RouteEvent::Lost] };
        let event = match message.message_type() {
            RTM_NEWROUTE => RouteEvent::Added,
            RTM_DELROUTE => RouteEvent::Removed,
            _ => continue,
        };
        events.extend(route::parse(message.payload()).map(event));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        netlink::{
            address,
            link::{self, By, End},
        },
        netns::testing::isolated,
    };

    #[test]
    fn routes_of_both_families_are_told_of_when_they_come_and_go() {
        isolated("netlink::route_monitor::tests::routes_of_both_families_are_told_of_when_they_come_and_go", |_| {
            let mut socket = Socket::open().unwrap();
            let end = |name| End { name, mac: None, mtu: 1500 };
            socket
                .run(&[link::veth(&end("a"), &end("b"), None), link::up(By::Name("a")), link::up(By::Name("b"))])
                .unwrap();
            let index = socket.link(By::Name("a")).unwrap().unwrap().index;
            let subscription = RouteSubscription::open().unwrap();
            let wanted = ["10.0.0.5/32", "fd00::5/128"].map(|net| Route::on(net.parse().unwrap(), index));
            for route in &wanted {
                socket.run(&[route::replace(route)]).unwrap();
                socket.run(&[route::delete(route)]).unwrap();
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let seen = runtime.block_on(async {
                let mut monitor = RouteMonitor::new(subscription).unwrap();
                let mut seen = Vec::new();
                while seen.len() < 4 {
                    let ours = |event: &RouteEvent| match event {
                        RouteEvent::Added(route) | RouteEvent::Removed(route) => wanted.contains(route),
                        RouteEvent::Lost => true,
                    };
                    seen.extend(monitor.next().await.unwrap().into_iter().filter(ours));
                }
                seen
            });
            let expected = wanted.map(|route| [RouteEvent::Added(route), RouteEvent::Removed(route)]);
            assert_eq!(seen, expected.concat());
        });
    }

    #[test]
    fn an_address_counts_when_its_packets_are_taken_in() {
        isolated("netlink::route_monitor::tests::an_address_counts_when_its_packets_are_taken_in", |_| {
            let mut socket = Socket::open().unwrap();
            let end = |name| End { name, mac: None, mtu: 1500 };
            socket.run(&[link::veth(&end("a"), &end("b"), None), link::up(By::Name("b"))]).unwrap();
            let index = socket.link(By::Name("a")).unwrap().unwrap().index;
            let (here, elsewhere) = ("fd00::5".parse().unwrap(), "fd00::6".parse().unwrap());
            let subscription = RouteSubscription::open().unwrap();
            // Whether the kernel takes it in before the link is on depends on who is quicker.
            socket.run(&[address::add(index, "fd00::5/64".parse().unwrap())]).unwrap();
            let on = std::thread::spawn(|| Socket::open().unwrap().run(&[link::up(By::Name("a"))]).unwrap());
            assert!(subscription.wait_local(&mut socket, index, &[here], Duration::from_secs(10)).unwrap());
            on.join().unwrap();
            assert!(socket.local_v6(index).unwrap().contains(&here));
            let subscription = RouteSubscription::open().unwrap();
            let patience = Duration::from_millis(50);
            assert!(!subscription.wait_local(&mut socket, index, &[here, elsewhere], patience).unwrap());
        });
    }
}
