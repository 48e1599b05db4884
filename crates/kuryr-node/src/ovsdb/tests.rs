//! The client against a scripted server, and against a private `ovsdb-server` where that is installed.

use super::{
    Cache, Client, Error,
    ports::{self, Forwarder},
    testing::{OVN, Server},
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::Instant,
};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// The server's side of one connection.
struct Script {
    stream: UnixStream,
    framer: super::frame::Framer,
}

impl Script {
    /// Accepts a client and gives it `tables` to begin with.
    async fn accept(listener: &UnixListener, tables: Value) -> Self {
        let mut script = Self { stream: listener.accept().await.unwrap().0, framer: Default::default() };
        let monitor = script.read().await;
        assert_eq!(monitor["method"], "monitor");
        script.write(&json!({ "id": monitor["id"], "result": tables, "error": null }).to_string()).await;
        script
    }

    async fn read(&mut self) -> Value {
        loop {
            if let Some(message) = self.framer.take().unwrap() {
                return serde_json::from_slice(&message).unwrap();
            }
            let mut buffer = [0; 512];
            let length = self.stream.read(&mut buffer).await.unwrap();
            assert!(length > 0, "the client hung up");
            self.framer.push(&buffer[..length]);
        }
    }

    async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self, request: &Value, result: Value) {
        self.write(&json!({ "id": request["id"], "result": result, "error": null }).to_string()).await;
    }
}

const ROW: &str = "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab";

fn bridge() -> Value {
    json!({ "Bridge": { ROW: { "new": { "name": "br-int", "ports": ["set", []], "datapath_type": "netdev" } } } })
}

fn update(interface: &Value) -> String {
    json!({ "method": "update", "params": ["kuryr", { "Interface": { ROW: interface } }], "id": null }).to_string()
}

fn interface(ofport: &Value, error: &Value, ids: &Value) -> Value {
    json!({ "new": { "name": "tap1", "ofport": ofport, "error": error, "external_ids": ["map", ids] } })
}

fn none() -> Value {
    json!(["set", []])
}

fn client(directory: &Path) -> (Client, UnixListener) {
    let socket = directory.join("db.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    (Client::start(&socket), listener)
}

#[tokio::test]
async fn several_messages_in_one_read_and_one_message_in_several() {
    let directory = tempfile::tempdir().unwrap();
    let (client, listener) = client(directory.path());
    let mut script = Script::accept(&listener, bridge()).await;
    let echo = json!({ "method": "echo", "params": ["are you there"], "id": "echo" }).to_string();
    let both = echo + &update(&interface(&none(), &none(), &json!([])));
    let (head, tail) = both.split_at(both.len() - 7);
    script.write(head).await;
    // The answer to the echo proves that the first part was read alone.
    assert_eq!(script.read().await, json!({ "result": ["are you there"], "error": null, "id": "echo" }));
    script.write(tail).await;
    let seen = client.wait(soon(), |cache| cache.interface("tap1").cloned()).await.unwrap();
    assert_eq!(seen.ofport, None);
}

#[tokio::test]
async fn readiness_is_told_by_who_forwards_and_refusal_by_the_switch() {
    let directory = tempfile::tempdir().unwrap();
    let (client, listener) = client(directory.path());
    let mut script = Script::accept(&listener, bridge()).await;
    let row = (ROW.parse().unwrap(), "tap1");
    let in_vlan = |tag: i64| {
        let port = json!({ "new": { "name": "tap1", "interfaces": ["uuid", ROW], "tag": tag } });
        json!({ "method": "update", "params": ["kuryr", { "Port": { ROW: port } }], "id": null }).to_string()
    };
    let both = [Forwarder::Ovn, Forwarder::Agent];
    script.write(&in_vlan(4095)).await;
    script.write(&update(&interface(&json!(3), &none(), &json!([])))).await;
    client.wait(soon(), |cache| cache.interface("tap1").map(|_| ())).await.unwrap();
    for forwarder in both {
        let early = ports::wait_ready(&client, Instant::now() + Duration::from_millis(20), row, forwarder).await;
        assert!(matches!(early, Err(Error::Deadline(_))), "{forwarder:?}: {early:?}");
    }
    script.write(&in_vlan(1)).await;
    ports::wait_ready(&client, soon(), row, Forwarder::Agent).await.unwrap();
    script.write(&update(&interface(&json!(3), &none(), &json!([["ovn-installed", "true"]])))).await;
    ports::wait_ready(&client, soon(), row, Forwarder::Ovn).await.unwrap();
    script.write(&update(&interface(&json!(-1), &json!("could not open network device"), &json!([])))).await;
    client.wait(soon(), |cache| cache.interface("tap1")?.error.clone()).await.unwrap();
    for forwarder in both {
        let refused = ports::wait_ready(&client, soon(), row, forwarder).await.unwrap_err();
        assert!(refused.to_string().contains("could not open network device"), "{forwarder:?}: {refused}");
    }
    script.write(&update(&json!({ "old": {} }))).await;
    client.wait(soon(), |cache| cache.interfaces.is_empty().then_some(())).await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_removed_while_it_is_waited_for_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (client, listener) = client(directory.path());
    let mut script = Script::accept(&listener, bridge()).await;
    script.write(&update(&interface(&json!(3), &none(), &json!([])))).await;
    client.wait(soon(), |cache| cache.interface("tap1").map(|_| ())).await.unwrap();
    let waiting = ports::wait_ready(&client, soon(), (ROW.parse().unwrap(), "tap1"), Forwarder::Ovn);
    let (outcome, ()) = tokio::join!(waiting, async {
        // Once the wait has seen the row.
        tokio::task::yield_now().await;
        script.write(&update(&json!({ "old": {} }))).await;
    });
    assert!(matches!(outcome, Err(Error::Vanished(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_lost_answer_is_followed_by_a_second_try_on_a_new_connection() {
    let directory = tempfile::tempdir().unwrap();
    let (client, listener) = client(directory.path());
    let server = async {
        let mut script = Script::accept(&listener, bridge()).await;
        assert_eq!(script.read().await["method"], "transact");
        drop(script);
        // The first insert was done, its answer lost: the name is taken, is freed, and taken again.
        let mut script = Script::accept(&listener, bridge()).await;
        let request = script.read().await;
        script.answer(&request, json!([{}, {}, { "count": 1 }, { "error": "constraint violation" }])).await;
        let select = script.read().await;
        assert_eq!(select["params"][1]["op"], "select");
        script.answer(&select, json!([{ "rows": [{ "_uuid": ["uuid", ROW] }] }, { "rows": [] }])).await;
        let unlink = script.read().await;
        assert_eq!(unlink["params"][1]["mutations"][0][1], "delete");
        script.answer(&unlink, json!([{ "count": 1 }])).await;
        let request = script.read().await;
        script.answer(&request, json!([{ "uuid": ["uuid", ROW] }, {}, { "count": 1 }])).await;
        script
    };
    let (row, _script) = tokio::join!(ports::add(&client, soon(), "br-int", "tap1", &[("kuryr", "c")]), server);
    assert_eq!(row.unwrap().0.to_string(), ROW);
}

#[tokio::test]
async fn a_database_that_is_away_or_talks_nonsense_is_named_at_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("db.sock");
    let client = Client::start(&socket);
    let away = client.transact(Instant::now() + Duration::from_millis(50), Vec::new()).await.unwrap_err();
    assert!(away.is_away() && away.to_string().contains("db.sock"), "{away}");
    // It is found when it comes.
    let listener = UnixListener::bind(&socket).unwrap();
    let (mut nonsense, _) = listener.accept().await.unwrap();
    nonsense.write_all(b"HTTP/1.1 400 Bad Request").await.unwrap();
    let script = Script::accept(&listener, bridge()).await;
    client.look(soon(), |_| ()).await.unwrap();
    let absent = ports::add(&client, soon(), "br-ex", "tap1", &[]).await.unwrap_err();
    assert!(matches!(&absent, Error::NoBridge(name) if name == "br-ex"), "{absent}");
    drop(script);
}

#[tokio::test]
async fn a_real_database_takes_marks_lists_and_gives_back_ports() {
    let Some(mut server) = Server::start() else {
        println!("ovsdb-server is not installed: only the scripted server was tried");
        return;
    };
    let client = server.client(OVN).await;
    let before = client.look(soon(), Cache::clone).await.unwrap();
    let marks = [("iface-id", "p"), ("kuryr", "c")];
    let (first, _) = ports::add(&client, soon(), "br-int", "tap1", &marks).await.unwrap();
    // Again, as after an ADD that was killed.
    let (second, forwarder) = ports::add(&client, soon(), "br-int", "tap1", &marks).await.unwrap();
    assert_ne!(first, second);
    client.wait(soon(), |cache| (cache.interfaces.len() == 1).then_some(())).await.unwrap();
    assert_eq!(client.look(soon(), |cache| cache.bridge_of("tap1").unwrap().name.clone()).await.unwrap(), "br-int");
    let listed = ports::list(&client, soon()).await.unwrap();
    assert_eq!((listed.len(), &*listed[0].iface_id, &*listed[0].container_id), (1, "p", "c"));

    // What ovs-vswitchd and OVN would write.
    let write = |row: Value| {
        vec![json!({ "op": "update", "table": "Interface", "where": [["name", "==", "tap1"]], "row": row })]
    };
    let installed = async {
        client.transact(soon(), write(json!({ "ofport": 5 }))).await.unwrap();
        let mutate = json!({ "op": "mutate", "table": "Interface", "where": [["name", "==", "tap1"]],
                             "mutations": [["external_ids", "insert", ["map", [["ovn-installed", "true"]]]]] });
        client.transact(soon(), vec![mutate]).await.unwrap();
    };
    let (ready, ()) = tokio::join!(ports::wait_ready(&client, soon(), (second, "tap1"), forwarder), installed);
    ready.unwrap();

    // The file keeps what the server forgets; the client comes back by itself.
    server.restart();
    let (lost, listed) = (client.transact(soon(), write(json!({}))).await, ports::list(&client, soon()).await.unwrap());
    assert!(matches!(lost, Ok(_) | Err(Error::Lost)), "{lost:?}");
    assert_eq!(listed.len(), 1);

    ports::delete(&client, soon(), "tap1", |ids| ids["kuryr"] == "somebody else").await.unwrap();
    assert_eq!(ports::list(&client, soon()).await.unwrap().len(), 1);
    for _ in 0..2 {
        ports::delete(&client, soon(), "tap1", |ids| ids["kuryr"] == "c").await.unwrap();
    }
    client.wait(soon(), |cache| cache.interfaces.is_empty().then_some(())).await.unwrap();
    let after = client.look(soon(), Cache::clone).await.unwrap();
    assert_eq!(after, before, "something else than the port was changed");
    let refused = client.transact(soon(), vec![json!({ "op": "select", "table": "Nope", "where": [] })]).await;
    assert!(matches!(&refused, Err(Error::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn adding_and_deleting_a_port_takes_a_fraction_of_a_millisecond() {
    let Some(server) = Server::start() else { return };
    let client = server.client(&[]).await;
    let mut times = Vec::new();
    for number in 0..100 {
        let (name, start) = (format!("tap{number}"), Instant::now());
        ports::add(&client, soon(), "br-int", &name, &[("iface-id", "p"), ("kuryr", "c")]).await.unwrap();
        let added = start.elapsed();
        ports::delete(&client, soon(), &name, |_| true).await.unwrap();
        times.push((added, start.elapsed() - added));
    }
    times.sort();
    println!("OVS port added in {:.2?} p50, {:.2?} p99; deleted in {:.2?}", times[50].0, times[98].0, times[50].1);
    assert!(times[50].0 < Duration::from_millis(20), "{times:?}");
}
