//! The broker as a service of the server.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::hub::Broker;
use super::proving::Proving;
use super::session::{BrokerSession, Executable};
use crate::peer::Inspector;
use crate::service::{Connection, Opened, Protocol, Waker};
use crate::sys::peer::pass_credentials;

/// `service=broker`: opens a session on a [`Broker`] for each connection.
#[derive(Clone)]
pub struct BrokerService {
    broker: Arc<Broker>,
    inspector: Option<Inspector>,
}

impl BrokerService {
    /// Serves this broker. No peer is asked for a proof: a rule or permit that names an
    /// executable then has the gap that a process may run another program between
    /// connect and check.
    pub fn new(broker: Arc<Broker>) -> Self {
        Self {
            broker,
            inspector: None,
        }
    }

    /// Asks peers whose rule names an executable, and those who hold a permit only for
    /// what they run, to prove that they are the process that was checked, and has
    /// `inspector` look at it once more. A permit that a reload adds counts for nobody's
    /// executable that was not proved.
    #[must_use]
    pub fn with_proof(mut self, inspector: Inspector) -> Self {
        self.inspector = Some(inspector);
        self
    }

    /// The broker, for a reload ([`Broker::reload`]).
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }
}

impl Protocol for BrokerService {
    fn role(&self) -> crate::sandbox::Role {
        crate::sandbox::Role::BrokerWorker
    }

    fn name(&self) -> &'static str {
        "broker"
    }

    fn needs_waker(&self) -> bool {
        true
    }

    fn proves_by_itself(&self) -> bool {
        true
    }

    fn can_block(&self) -> bool {
        true
    }

    fn open(&self, connection: &Arc<Connection>, waker: Option<Waker>) -> io::Result<Opened> {
        let waker = waker.ok_or_else(|| io::Error::other("the broker needs a waker"))?;
        let waker = Waker::new({
            let connection = Arc::clone(connection);
            move || {
                waker.wake();
                // On the pool its thread may be blocked in a receive.
                connection.interrupt();
            }
        });
        let authorized = connection.authorized();
        let by_executable = authorized.names_executable()
            || self.broker.rights_rest_on_executable(authorized.facts());
        let proof = match (&self.inspector, authorized.pid()) {
            (Some(inspector), Some(pid)) if by_executable => {
                let limits = self.broker.limits();
                Some(Proving::new(connection, pid, &limits, inspector.clone())?)
            }
            // The listener asked for senders; who proves nothing needs none.
            (Some(_), _) if authorized.facts().address.is_none() => {
                pass_credentials(connection.as_fd(), false)?;
                None
            }
            _ => None,
        };
        let executable = match (&self.inspector, &proof) {
            (Some(_), None) => Executable::Unproved,
            _ => Executable::Counts,
        };
        let (broker, connection) = (Arc::clone(&self.broker), Arc::clone(connection));
        Ok(Box::new(BrokerSession::new(
            broker, connection, waker, proof, executable,
        )))
    }

    fn drain(&self, until: Instant) {
        self.broker.stop(until);
    }
}
