use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use situ_wire::codec;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::messages::StreamOpen;

use super::{
    Caller, CallerIdentity, Connector, FrameReceiver, FrameSender, Identity, Reply, RpcError, ServerIdentity, Service,
    serve,
};
use crate::Runtime;
use crate::clock::Clock;
use crate::sim::{SimRuntime, SimWorld};
use crate::transport::sim::{IDLE_TIMEOUT, SimReceiveStream, SimSendStream};
use crate::transport::{Listener, Transport, TransportError};

const LONG: Duration = Duration::from_secs(60);

/// Answers a number after as many milliseconds; gives odd ones up.
#[derive(Clone)]
struct Sleeper(SimRuntime);

impl Service<SimRuntime> for Sleeper {
    fn call(&self, _caller: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        let runtime = self.0.clone();
        let delay_ms: u64 = match codec::decode(&request) {
            Ok(delay_ms) => delay_ms,
            Err(error) => {
                return reply.send::<u64>(Err(RemoteError::new(ErrorCode::Malformed, "a call", error.to_string())));
            }
        };
        self.0.spawn("answer", async move {
            runtime.clock().sleep(Duration::from_millis(delay_ms)).await;
            if delay_ms.is_multiple_of(2) {
                reply.send(Ok(&delay_ms));
            }
        });
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

async fn start(world: &SimWorld, name: &str) -> SocketAddr {
    let server = world.host(name, &[Role::Namenode]);
    let listener = server.transport().listen(SocketAddr::from(([0, 0, 0, 0], 8000))).await.unwrap();
    let address = listener.address();
    let identity = ServerIdentity { cluster: world.cluster(), role: Role::Namenode };
    server.spawn("serve", serve(server.clone(), listener, identity, Sleeper(server.clone())));
    address
}

fn connector(world: &SimWorld, name: &str) -> Connector<SimRuntime> {
    let runtime = world.host(name, &[Role::User]);
    let identity = Identity { cluster: world.cluster(), role: Role::User, name: name.to_owned() };
    Connector::new(runtime, identity)
}

#[test]
fn calls_are_answered_in_any_order() {
    SimWorld::run(1, async |world| {
        let address = start(&world, "nn").await;
        let caller: Caller<_, u64, u64> = connector(&world, "ann").caller(address, Role::Namenode).await.unwrap();
        let order = std::sync::Mutex::new(Vec::new());
        futures_util::future::join_all([40_u64, 20, 30].map(|delay_ms| {
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
        let address = start(&world, "nn").await;
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
        let address = start(&world, "nn").await;
        let connector = connector(&world, "ann");
        let caller: Caller<_, u64, u64> = connector.caller(address, Role::Namenode).await.unwrap();
        let (lost, ()) = tokio::join!(caller.call(&50_000, LONG), async {
            world.clock().sleep(Duration::from_millis(5)).await;
            world.kill("nn");
        });
        assert!(matches!(lost, Err(RpcError::Transport(TransportError::Closed { .. }))), "{lost:?}");
        let refused = connector.caller::<u64, u64>(address, Role::Namenode).await.map(drop);
        assert!(matches!(refused, Err(RpcError::Transport(TransportError::Unreachable { .. }))), "{refused:?}");
        assert_eq!(start(&world, "nn").await, address);
        let caller: Caller<_, u64, u64> = connector.caller(address, Role::Namenode).await.unwrap();
        assert_eq!(caller.call(&10, LONG).await, Ok(10));
    });
}
