//! Calls to a scheduler and to an executor.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use situ_client::{Client, ClientConfig, ClientError};
use situ_runtime::Runtime;
use situ_runtime::rpc::{CallerIdentity, FrameReceiver, FrameSender, Reply, RpcError, ServerIdentity, Service, serve};
use situ_runtime::sim::{SimRuntime, SimWorld};
use situ_runtime::transport::sim::{SimReceiveStream, SimSendStream};
use situ_runtime::transport::{Listener, Transport};
use situ_wire::codec;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::{JobId, OperationId};
use situ_wire::messages::StreamOpen;
use situ_wire::messages::executor::{self, LogName};
use situ_wire::messages::scheduler::{Program, Request, Response};

/// Starts each job once, and loses its first answer.
#[derive(Clone, Default)]
struct Scheduler {
    jobs: Arc<Mutex<BTreeMap<OperationId, JobId>>>,
    lost: Arc<Mutex<Vec<Reply>>>,
}

/// Has one log.
#[derive(Clone)]
struct Executor;

const LOG: &[u8] = b"one\ntwo\n";

impl Service<SimRuntime> for Scheduler {
    fn call(&self, _caller: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        match codec::decode(&request).unwrap() {
            Request::Submit { operation, .. } => {
                let mut jobs = self.jobs.lock().unwrap();
                let number = JobId(jobs.len() as u64 + 1);
                let job = *jobs.entry(operation).or_insert(number);
                let mut lost = self.lost.lock().unwrap();
                if lost.is_empty() {
                    lost.push(reply)
                } else {
                    reply.send(Ok(&Response::Submitted { job, attachment: None }))
                }
            }
            Request::Kill { job, .. } => {
                reply.send::<Response>(Err(RemoteError::new(ErrorCode::NotFound, job, "there is no such job")));
            }
            _ => reply.send(Ok(&Response::Done)),
        }
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

impl Service<SimRuntime> for Executor {
    fn call(&self, _caller: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        let executor::Request::ReadLog { offset, .. } = codec::decode(&request).unwrap() else { return };
        let from = LOG.len().min(usize::try_from(offset).unwrap());
        reply.send(Ok(&executor::Response::Log(Bytes::from_static(&LOG[from..]))));
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

async fn start(world: &SimWorld, name: &str, role: Role, service: impl Service<SimRuntime>) -> SocketAddr {
    let runtime = world.host(name, &[role]);
    let listener = runtime.transport().listen(SocketAddr::from(([0, 0, 0, 0], 7000))).await.unwrap();
    let address = listener.address();
    let identity = ServerIdentity { cluster: world.cluster(), role };
    runtime.spawn("serve", serve(runtime.clone(), listener, identity, service));
    address
}

#[test]
fn a_job_is_started_once_and_its_log_is_read_to_the_end() {
    SimWorld::run(1, async |world| {
        let scheduler = Scheduler::default();
        let address = start(&world, "sched", Role::Scheduler, scheduler.clone()).await;
        let executor = start(&world, "exec", Role::Executor, Executor).await;
        let mut config = ClientConfig::new(world.cluster(), address);
        config.scheduler = Some(address);
        let client = Client::new(world.host("ann", &[Role::User]), config.clone(), config.user("ann"));
        let jobs = client.scheduler();
        let pi = Program::BuiltIn { name: "pi".into() };
        assert_eq!(jobs.submit(pi.clone(), vec![]).await.unwrap(), JobId(1));
        assert_eq!(scheduler.jobs.lock().unwrap().len(), 1, "a lost answer starts no second job");
        assert_eq!(jobs.submit(pi, vec![]).await.unwrap(), JobId(2));

        let error = jobs.kill(JobId(9), "enough").await.unwrap_err();
        assert_eq!(error.to_string(), "cannot kill job-9: there is no such job");
        let error = jobs.list().await.unwrap_err();
        assert!(
            matches!(error, ClientError::Rpc { error: RpcError::WrongAnswer { request: "List", .. }, .. }),
            "{error}"
        );

        let log = jobs.log_reader(executor);
        assert_eq!(log.read(JobId(1), LogName::Worker, 0).await.unwrap(), LOG);
        assert_eq!(log.read(JobId(1), LogName::Worker, LOG.len() as u64).await.unwrap(), b""[..]);
    });
}

#[test]
fn without_a_scheduler_the_configuration_is_named() {
    SimWorld::run(1, async |world| {
        let config = ClientConfig::new(world.cluster(), SocketAddr::from(([10, 0, 0, 1], 1)));
        let client = Client::new(world.host("ann", &[Role::User]), config.clone(), config.user("ann"));
        let error = client.scheduler().list().await.unwrap_err();
        assert!(error.to_string().contains("set `scheduler`"), "{error}");
    });
}
