//! A node with a client on one side and the network of Services on the other, in namespaces made for a test.
//!
//! ```text
//!  client 198.18.0.2 ── 198.18.0.1 the test's own namespace 198.19.0.1 ── 198.19.0.2 services: 10.96.0.9
//!         fd00:c::2 ── fd00:c::1           (the node)         fd00:b::1 ── fd00:b::2           fd00:96::9
//! ```
//!
//! The network of Services knows no way to clients: it answers them only if it takes them for the node.

use crate::{
    netlink::{
        Socket, address,
        link::{self, By, End},
        monitor::Subscription,
        route::{self, Route},
        sysctl,
    },
    netns::{self, Namespace, testing::namespace},
};
use ipnet::IpNet;
use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

/// Index of the loopback in every namespace.
const LOOPBACK: u32 = 1;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(4);

pub(super) const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

pub(super) struct Lab {
    pub(super) client: PathBuf,
    pub(super) services: PathBuf,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A veth between the test's namespace and another, with these addresses of the one and the other end; its indices.
fn wire(name: &str, far: &Path, addresses: [[&str; 2]; 2]) -> (u32, u32) {
    let mut here = Socket::open().unwrap();
    let namespace = Namespace::open(far).unwrap();
    let (near, end) = (End { name, mac: None, mtu: 1500 }, End { name: "eth0", mac: None, mtu: 1500 });
    here.run(&[link::veth(&near, &end, Some(namespace.as_fd())), link::up(By::Name(name))]).unwrap();
    let index = here.link(By::Name(name)).unwrap().unwrap().index;
    let running = Subscription::open().unwrap();
    let give = |socket: &mut Socket, index, [v4, v6]: [&str; 2]| {
        let nets = [IpNet::new(ip(v4), 24).unwrap(), IpNet::new(ip(v6), 64).unwrap()];
        socket.run(&nets.map(|net| address::add(index, net))).unwrap();
    };
    give(&mut here, index, addresses[0]);
    let far = netns::run(far, || {
        let mut there = Socket::open().unwrap();
        let far = there.link(By::Name("eth0")).unwrap().unwrap().index;
        there.run(&[link::up(By::Index(far))]).unwrap();
        give(&mut there, far, addresses[1]);
        far
    });
    assert!(running.wait_running(&mut here, index, PATIENCE).unwrap());
    (index, far.unwrap())
}

impl Lab {
    /// Makes it around the calling thread's namespace.
    pub(super) fn new(folder: &Path) -> Self {
        for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            sysctl::set(name, "1").unwrap();
        }
        let lab = Self { client: namespace(folder, "client"), services: namespace(folder, "services") };
        let ends = [["198.18.0.1", "fd00:c::1"], ["198.18.0.2", "fd00:c::2"]];
        let (_, far) = wire("clients0", &lab.client, ends);
        netns::run(&lab.client, || {
            let gateways = ends[0].map(|gateway| Route::via(route::everywhere(ip(gateway)), ip(gateway), far));
            Socket::open().unwrap().run(&gateways.map(|gateway| route::add(&gateway))).unwrap();
        })
        .unwrap();
        let ends = [["198.19.0.1", "fd00:b::1"], ["198.19.0.2", "fd00:b::2"]];
        let (near, _) = wire("services0", &lab.services, ends);
        let ways = [("10.96.0.0/16", ends[1][0]), ("fd00:96::/64", ends[1][1])];
        let ways = ways.map(|(net, gateway)| route::add(&Route::via(net.parse().unwrap(), ip(gateway), near)));
        Socket::open().unwrap().run(&ways).unwrap();
        netns::run(&lab.services, || {
            let addresses = ["10.96.0.9", "fd00:96::9"].map(|own| address::add(LOOPBACK, IpNet::from(ip(own))));
            Socket::open().unwrap().run(&addresses).unwrap();
        })
        .unwrap();
        lab
    }
}

/// Answers everybody who asks at `address` in `netns` with who that is, and who answers; until the test ends.
pub(super) fn serve(netns: &Path, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let (tcp, udp) =
        netns::run(netns, || (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap())).unwrap();
    let answer = move |who: SocketAddr| format!("{} {}", who.ip(), address.ip());
    std::thread::spawn(move || {
        while let Ok((mut stream, who)) = tcp.accept() {
            std::thread::spawn(move || {
                // As often as something is said.
                while stream.read(&mut [0; 16]).is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(answer(who).as_bytes());
                }
            });
        }
    });
    std::thread::spawn(move || {
        while let Ok((_, who)) = udp.recv_from(&mut [0; 16]) {
            let _ = udp.send_to(answer(who).as_bytes(), who);
        }
    });
}

/// A connection that can be asked several times.
pub(super) enum Session {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Session {
    /// Opens one from `netns`, or from the calling thread's namespace.
    pub(super) fn open(netns: Option<&Path>, protocol: Protocol, target: &str) -> io::Result<Self> {
        let target: SocketAddr = target.parse().unwrap();
        let open = || {
            if protocol == Protocol::Tcp {
                let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(Self::Tcp(stream));
            }
            let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(Self::Udp(socket))
        };
        match netns {
            Some(netns) => netns::run(netns, open).unwrap(),
            None => open(),
        }
    }

    /// Who it is taken for, and by whom.
    pub(super) fn ask(&mut self) -> io::Result<String> {
        let mut answer = [0; 128];
        let length = match self {
            Self::Tcp(stream) => {
                stream.write_all(b"?")?;
                stream.read(&mut answer)?
            }
            Self::Udp(socket) => {
                socket.send(b"?")?;
                socket.recv(&mut answer)?
            }
        };
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }
}

/// Asks once over a new connection, without holding up the daemon.
pub(super) async fn ask(netns: Option<&Path>, protocol: Protocol, target: &str) -> io::Result<String> {
    let (netns, target) = (netns.map(Path::to_owned), target.to_owned());
    netns::spawn(move || Session::open(netns.as_deref(), protocol, &target)?.ask()).await.unwrap()
}

/// The answer to an HTTP request, as it comes.
pub(super) async fn get(netns: Option<&Path>, target: &str) -> io::Result<String> {
    let (netns, target) = (netns.map(Path::to_owned), target.to_owned());
    let work = move || {
        let open = || TcpStream::connect(&target);
        let mut stream = match &netns {
            Some(netns) => netns::run(netns, open).map_err(io::Error::other)??,
            None => open()?,
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    netns::spawn(work).await.unwrap()
}

/// The same until the answer is the one that is wanted.
pub(super) async fn ask_until(netns: Option<&Path>, protocol: Protocol, target: &str, wanted: &str) {
    let asking = async {
        loop {
            match ask(netns, protocol, target).await {
                Ok(answer) if answer == wanted => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let patience = Duration::from_secs(20);
    let in_time = tokio::time::timeout(patience, asking).await.is_ok();
    assert!(in_time, "{protocol:?} {target} does not answer {wanted}: {:?}", ask(netns, protocol, target).await);
}
