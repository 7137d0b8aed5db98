//! `situ ca`: the certificates of a cluster that is built by hand.

use situ_runtime::security::{Authority, Credentials};
use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;

use crate::args::{CaCommand, RoleArg};
use crate::error::{CliResult, LocalContext};
use crate::show::{self, escaped};

/// Runs one command.
///
/// # Errors
/// When a directory cannot be written, or holds what it should not or lacks what it should.
pub fn run(command: &CaCommand, json: bool) -> CliResult {
    match command {
        CaCommand::Init { dir } => {
            let authority = Authority::create(ClusterId(fastrand::u128(1..)))?;
            std::fs::create_dir_all(dir).local("cannot make", dir)?;
            authority.save(dir)?;
            if json {
                return show::json(
                    &serde_json::json!({ "cluster": authority.cluster().to_string(), "directory": dir.to_string_lossy() }),
                );
            }
            show::line(format!("cluster {}", authority.cluster()))?;
            show::line(format!("its authority is in {}: keep ca.key to yourself", dir.display()))
        }
        CaCommand::Issue { dir, role, name, out } => {
            let role = match role {
                RoleArg::Namenode => Role::Namenode,
                RoleArg::Datanode => Role::Datanode,
                RoleArg::Scheduler => Role::Scheduler,
                RoleArg::Executor => Role::Executor,
                RoleArg::User => Role::User,
            };
            let credentials = Authority::load(dir)?.issue(&[role], name)?;
            std::fs::create_dir_all(out).local("cannot make", out)?;
            credentials.save(out)?;
            if json {
                return show::json(
                    &serde_json::json!({ "role": role.name(), "name": name, "directory": out.to_string_lossy() }),
                );
            }
            show::line(format!("certificate of {role} {name} in {}", out.display()))
        }
        CaCommand::Show { dir } => {
            let holder = dir.join("node.pem").exists().then(|| Credentials::load(dir)).transpose()?;
            let cluster = match &holder {
                Some(credentials) => credentials.cluster(),
                None => Authority::load(dir)?.cluster(),
            };
            if json {
                let roles =
                    holder.as_ref().map(|holder| holder.roles().iter().map(|role| role.name()).collect::<Vec<_>>());
                let name = holder.as_ref().map(Credentials::name);
                return show::json(
                    &serde_json::json!({ "cluster": cluster.to_string(), "roles": roles, "name": name }),
                );
            }
            show::line(format!("cluster {cluster}"))?;
            match holder {
                Some(holder) => {
                    show::line(format!("certificate of {} {}", Role::list(holder.roles()), escaped(holder.name())))
                }
                None => show::line("certificate of its authority"),
            }
        }
    }
}
