use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use situ_wire::codec::{self, CodecError};
use situ_wire::error::ErrorCode;
use situ_wire::hello::{Hello, HelloReply, MAGIC, ProtocolVersion, Role};
use situ_wire::ids::ClusterId;
use situ_wire::limits::{HELLO_LEN_BYTES, MESSAGE_LEN_BYTES};
use situ_wire::messages::{Answer, Call, StreamOpen};
use tokio::sync::mpsc;

use super::{
    Caller, CallerIdentity, Connector, FrameReceiver, FrameSender, Identity, Reply, RpcError, ServerIdentity, Service,
    receive_message, send_message, serve,
};
use crate::Runtime;
use crate::clock::Clock;
use crate::sim::{SimRuntime, SimWorld};
use crate::transport::sim::{IDLE_TIMEOUT, SimConnection, SimReceiveStream, SimSendStream};
use crate::transport::{Connection, Listener, SendStream, Transport, TransportError};

const LONG: Duration = Duration::from_secs(60);
const LONG_ANSWER: &[u8] = b"a long answer, please";

/// Answers a number after as many milliseconds; gives odd ones up. Answers [`LONG_ANSWER`] with almost as many bytes as
/// fit, all else with more.
#[derive(Clone)]
struct Sleeper {
    runtime: SimRuntime,
    lost: mpsc::UnboundedSender<String>,
}

impl Service<SimRuntime> for Sleeper {
    fn call(&self, _caller: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        let runtime = self.runtime.clone();
        let Ok(delay_ms) = codec::decode::<u64>(&request) else {
            let missing = if request == LONG_ANSWER { 100 } else { 4 };
            return reply.send(Ok(&Bytes::from(vec![0_u8; MESSAGE_LEN_BYTES - missing])));
        };
        self.runtime.spawn("answer", async move {
            runtime.clock().sleep(Duration::from_millis(delay_ms)).await;
            if delay_ms.is_multiple_of(2) {
                reply.send(Ok(&delay_ms));
            }
        });
    }

    fn disconnected(&self, caller: &Arc<CallerIdentity>) {
        let _ = self.lost.send(caller.name.clone());
    }

    async fn stream(
        &self,
        _caller: Arc<CallerIdentity>,
        _open: StreamOpen,
        _send: FrameSender<SimSendStream>,
        _receive: FrameReceiver<SimReceiveStream>,
    ) -> Result<(), RpcError> {
        Ok(())
    }
}

/// Starts a namenode; says where, and who has left it.
async fn start(world: &SimWorld, name: &str) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let server = world.host(name, &[Role::Namenode]);
    let listener = server.transport().listen(SocketAddr::from(([0, 0, 0, 0], 8000))).await.unwrap();
    let address = listener.address();
    let identity = ServerIdentity { cluster: world.cluster(), role: Role::Namenode };
    let (lost, left) = mpsc::unbounded_channel();
    let service = Sleeper { runtime: server.clone(), lost };
    server.spawn("serve", serve(server.clone(), listener, identity, service));
    (address, left)
}

fn connector(world: &SimWorld, name: &str) -> Connector<SimRuntime> {
    let runtime = world.host(name, &[Role::User]);
    let identity = Identity { cluster: world.cluster(), role: Role::User, name: name.to_owned() };
    Connector::new(runtime, identity)
}

#[test]
fn calls_are_answered_in_any_order() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let caller: Caller<_, u64, u64> = connector(&world, "ann").caller(address, Role::Namenode).await.unwrap();
        let order = std::sync::Mutex::new(Vec::new());
        join_all([40_u64, 20, 30].map(|delay_ms| {
            let (caller, order) = (caller.clone(), &order);
            async move {
                assert_eq!(caller.call(&delay_ms, LONG).await, Ok(delay_ms));
                order.lock().unwrap().push(delay_ms);
            }
        }))
        .await;
        assert_eq!(order.into_inner().unwrap(), [20, 30, 40]);
    });
}

#[test]
fn a_cut_link_fails_waiting_calls_and_a_new_caller_works_after_it_heals() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let connector = connector(&world, "ann");
        let caller: Caller<_, u64, u64> = connector.caller(address, Role::Namenode).await.unwrap();
        world.network().cut_one_way(address.ip(), world.ip("ann").unwrap());
        let before = world.clock().now();
        let lost = caller.call(&10, LONG).await.unwrap_err();
        assert!(matches!(lost, RpcError::Transport(TransportError::Closed { .. })), "{lost}");
        assert_eq!(world.clock().now().since(before), IDLE_TIMEOUT);
        assert!(caller.is_closed());
        world.network().heal_all();
        let caller: Caller<_, u64, u64> = connector.caller(address, Role::Namenode).await.unwrap();
        assert_eq!(caller.call(&10, LONG).await, Ok(10));
    });
}

#[test]
fn a_killed_server_fails_waiting_calls_and_its_successor_answers() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let connector = connector(&world, "ann");
        let caller: Caller<_, u64, u64> = connector.caller(address, Role::Namenode).await.unwrap();
        let (lost, ()) = tokio::join!(caller.call(&50_000, LONG), async {
            world.clock().sleep(Duration::from_millis(5)).await;
            world.kill("nn");
        });
        assert!(matches!(lost, Err(RpcError::Transport(TransportError::Closed { .. }))), "{lost:?}");
        let refused = connector.caller::<u64, u64>(address, Role::Namenode).await.map(drop);
        assert!(matches!(refused, Err(RpcError::Transport(TransportError::Unreachable { .. }))), "{refused:?}");
        assert_eq!(start(&world, "nn").await.0, address);
        let caller: Caller<_, u64, u64> = connector.caller(address, Role::Namenode).await.unwrap();
        assert_eq!(caller.call(&10, LONG).await, Ok(10));
    });
}

#[test]
fn a_call_whose_time_is_up_leaves_the_others_alone() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let caller: Caller<_, u64, u64> = connector(&world, "ann").caller(address, Role::Namenode).await.unwrap();
        let timeout = Duration::from_millis(50);
        let before = world.clock().now();
        let (late, in_time) = join(caller.call(&100, timeout), caller.call(&200, LONG)).await;
        assert_eq!(late, Err(RpcError::DeadlineExceeded { timeout }));
        assert_eq!(in_time, Ok(200));
        assert_eq!(world.clock().now().since(before), Duration::from_millis(200));
    });
}

#[test]
fn a_call_that_the_server_gives_up_can_be_tried_again() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let caller: Caller<_, u64, u64> = connector(&world, "ann").caller(address, Role::Namenode).await.unwrap();
        let given_up = caller.call(&7, LONG).await.unwrap_err();
        assert_eq!(given_up.remote().map(|error| error.code), Some(ErrorCode::Unavailable), "{given_up}");
        assert_eq!(caller.call(&8, LONG).await, Ok(8));
    });
}

#[test]
fn what_is_too_long_fails_alone() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let connector = connector(&world, "ann");
        let caller: Caller<_, Bytes, u64> = connector.caller(address, Role::Namenode).await.unwrap();
        // Alone they fit into a message, but not into one with a number.
        let request = Bytes::from(vec![0; MESSAGE_LEN_BYTES - 4]);
        let too_long = |error: &RpcError| matches!(error, RpcError::Codec(CodecError::TooLong { .. }));
        let four = codec::encode(&4_u64).unwrap();
        let (long, short) = join(caller.call(&request, LONG), caller.call(&four, LONG)).await;
        assert!(long.is_err_and(|error| too_long(&error)));
        let not_a_number = short.unwrap_err();
        assert_eq!(not_a_number.remote().map(|error| error.code), Some(ErrorCode::TooMuch), "{not_a_number}");
        assert!(!caller.is_closed());
    });
}

#[test]
fn whoever_asks_and_does_not_read_gets_short_answers() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let connector = connector(&world, "ann");
        let (mut send, mut receive) = connector.stream(address, Role::Namenode, &StreamOpen::Calls).await.unwrap();
        let request = Bytes::from_static(LONG_ANSWER);
        for number in 0..40 {
            send.message(&Call { number, timeout_ms: 60_000, request: request.clone() }).await.unwrap();
        }
        world.clock().sleep(Duration::from_secs(1)).await;
        let (mut long, mut put_off) = (0, 0);
        for _ in 0..40 {
            match receive.message::<Answer>().await.unwrap().unwrap().result {
                Ok(bytes) => long += bytes.len(),
                Err(error) if error.code == ErrorCode::Unavailable => put_off += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(put_off >= 20 && long <= (256 << 20) + 2 * MESSAGE_LEN_BYTES, "{put_off} put off, {long} bytes");
        // What was read makes room.
        send.message(&Call { number: 40, timeout_ms: 60_000, request }).await.unwrap();
        assert!(receive.message::<Answer>().await.unwrap().unwrap().result.is_ok());
    });
}

#[test]
fn a_server_hears_who_has_left() {
    SimWorld::run(1, async |world| {
        let (address, mut left) = start(&world, "nn").await;
        let ann = connector(&world, "ann");
        let _bob = connector(&world, "bob").caller::<u64, u64>(address, Role::Namenode).await.unwrap();
        let _stream = ann.stream(address, Role::Namenode, &StreamOpen::Calls).await.unwrap();
        world.kill("ann");
        assert_eq!(left.recv().await.as_deref(), Some("ann"));
        assert!(left.is_empty());
    });
}

#[test]
fn those_who_wait_for_a_dead_peer_wait_together() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let connector = connector(&world, "ann");
        world.network().cut(address.ip(), world.ip("ann").unwrap());
        let before = world.clock().now();
        let waiting = (0..10).map(|_| connector.caller::<u64, u64>(address, Role::Namenode));
        for refused in join_all(waiting).await {
            assert!(matches!(refused, Err(RpcError::DeadlineExceeded { .. })));
        }
        assert_eq!(world.clock().now().since(before), Duration::from_secs(5));
        world.network().heal_all();
        let caller: Caller<_, u64, u64> = connector.caller(address, Role::Namenode).await.unwrap();
        assert_eq!(caller.call(&10, LONG).await, Ok(10));
    });
}

/// Says hello by hand; the answer, and whether the connection still stands when the server has dealt with it.
async fn greet(world: &SimWorld, address: SocketAddr, hello: &Hello) -> (SimConnection, HelloReply) {
    let runtime = world.host("ann", &[Role::User]);
    let connection = runtime.transport().connect(address, Role::Namenode).await.unwrap();
    let (mut send, receive) = connection.open().await.unwrap();
    send_message(&mut send, hello).await.unwrap();
    let reply = receive_message(receive, HELLO_LEN_BYTES).await.unwrap();
    (connection, reply)
}

fn hello(world: &SimWorld) -> Hello {
    Hello {
        magic: MAGIC,
        version: ProtocolVersion::CURRENT,
        cluster: world.cluster(),
        to: Role::Namenode,
        role: Role::User,
        name: "ann".to_owned(),
    }
}

#[test]
fn a_wrong_hello_is_refused_with_the_reason() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let good = hello(&world);
        let (_, reply) = greet(&world, address, &good).await;
        assert_eq!(reply, HelloReply::Welcome { version: ProtocolVersion::CURRENT });
        let wrong = [
            (Hello { magic: *b"HTTP", ..good.clone() }, ErrorCode::Malformed),
            (Hello { version: ProtocolVersion(99), ..good.clone() }, ErrorCode::WrongVersion),
            (Hello { cluster: ClusterId(99), ..good.clone() }, ErrorCode::WrongCluster),
            (Hello { to: Role::Scheduler, ..good.clone() }, ErrorCode::WrongIdentity),
            (Hello { role: Role::Datanode, ..good.clone() }, ErrorCode::WrongIdentity),
            (Hello { name: "bob".to_owned(), ..good.clone() }, ErrorCode::WrongIdentity),
        ];
        for (hello, expected) in wrong {
            let (connection, reply) = greet(&world, address, &hello).await;
            assert!(matches!(&reply, HelloReply::Refused(error) if error.code == expected), "{hello:?}: {reply:?}");
            connection.closed().await;
        }
    });
}

#[test]
fn who_comes_with_a_certificate_for_another_role_hears_which_one_it_has_and_how_to_get_the_right_one() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let (_, reply) = greet(&world, address, &Hello { role: Role::Datanode, ..hello(&world) }).await;
        let HelloReply::Refused(error) = reply else { panic!("{reply:?}") };
        assert_eq!(
            error.to_string(),
            "datanode ann: expected a certificate for datanode \"ann\", found one for user \"ann\"; have one issued with \
             `situ ca issue --role datanode --name \"ann\" --dir CA --out DIR`, and set `credentials` to that DIR"
        );
    });
}

#[test]
fn who_is_refused_hears_by_whom() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let identity = Identity { cluster: ClusterId(99), role: Role::User, name: "ann".to_owned() };
        let connector = Connector::new(world.host("ann", &[Role::User]), identity);
        let refused = connector.caller::<u64, u64>(address, Role::Namenode).await.unwrap_err();
        let start = format!("the namenode at {address} refused user ann: it belongs to cluster");
        assert!(refused.to_string().starts_with(&start), "{refused}");
        assert_eq!(refused.remote().map(|error| error.code), Some(ErrorCode::WrongCluster));
    });
}

#[test]
fn silence_and_garbage_instead_of_a_hello_close_the_connection() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let runtime = world.host("ann", &[Role::User]);
        for garbage in [None, Some(&b"GET / HTTP/1.1\r\n\r\n"[..]), Some(&[3, 0, 0, 0, 1, 2, 3][..])] {
            let connection = runtime.transport().connect(address, Role::Namenode).await.unwrap();
            let (mut send, _receive) = connection.open().await.unwrap();
            if let Some(garbage) = garbage {
                send.send(Bytes::from_static(garbage)).await.unwrap();
            }
            connection.closed().await;
        }
    });
}

#[test]
fn garbage_on_a_stream_ends_that_stream_alone() {
    SimWorld::run(1, async |world| {
        let (address, _left) = start(&world, "nn").await;
        let connector = connector(&world, "ann");
        let caller: Caller<_, u64, u64> = connector.caller(address, Role::Namenode).await.unwrap();
        for garbage in [&[0xFF; 100][..], &[1, 0, 0, 0, 77], &[200, 0, 0, 0, 1]] {
            let (mut send, mut receive) = connector.stream(address, Role::Namenode, &StreamOpen::Calls).await.unwrap();
            send.bytes(Bytes::from_static(garbage)).await.unwrap();
            send.finish().await.unwrap();
            assert_eq!(receive.message::<u64>().await, Ok(None));
        }
        assert_eq!(caller.call(&10, LONG).await, Ok(10));
    });
}

#[test]
fn a_message_that_comes_in_pieces_survives_being_given_up() {
    SimWorld::run(1, async |world| {
        let server = world.host("nn", &[Role::Namenode]);
        let client = world.host("ann", &[Role::User]);
        let mut listener = server.transport().listen(SocketAddr::from(([0, 0, 0, 0], 8000))).await.unwrap();
        let connect = client.transport().connect(listener.address(), Role::Namenode);
        let (here, there) = join(connect, listener.accept()).await;
        let (here, there) = (here.unwrap(), there.unwrap());
        let (mut send, _receive) = here.open().await.unwrap();
        let message = "a long message ".repeat(10);
        let mut frame = bytes::BytesMut::new();
        codec::encode_frame(&message, &mut frame).unwrap();
        codec::encode_frame(&message, &mut frame).unwrap();
        let send_slowly = async {
            for byte in frame {
                send.send(Bytes::copy_from_slice(&[byte])).await.unwrap();
                world.clock().sleep(Duration::from_millis(10)).await;
            }
            send.finish().await.unwrap();
        };
        let take = async {
            let mut receive = FrameReceiver::new(there.accept().await.unwrap().1);
            let mut messages: Vec<String> = Vec::new();
            loop {
                match world.clock().timeout(Duration::from_millis(25), receive.message()).await {
                    None => {}
                    Some(Ok(None)) => break messages,
                    Some(Ok(Some(message))) => messages.push(message),
                    Some(Err(error)) => panic!("{error}"),
                }
            }
        };
        let ((), messages) = join(send_slowly, take).await;
        assert_eq!(messages, [message.clone(), message]);
    });
}

#[test]
fn a_seed_decides_everything() {
    let trace = |seed| {
        SimWorld::run(seed, async |world| {
            world.network().set_latency(Duration::from_millis(1)..=Duration::from_millis(50));
            let (address, _left) = start(&world, "nn").await;
            let callers = (0..5).map(|number| connector(&world, &format!("user-{number}")));
            let times = callers.map(async |connector| {
                let caller: Caller<_, u64, u64> = connector.caller(address, Role::Namenode).await.unwrap();
                for _ in 0..10 {
                    let delay_ms = connector.runtime().random_u64() % 100 * 2;
                    caller.call(&delay_ms, LONG).await.unwrap();
                }
                world.clock().now()
            });
            join_all(times).await
        })
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}
