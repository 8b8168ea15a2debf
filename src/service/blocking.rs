//! Runs an embedder's blocking service as a session of a single step.

use std::io;
use std::sync::Arc;

use super::{CloseReason, Connection, Next, Opened, Protocol, Service, Session, Turn, Waker};

/// The embedder's service as a protocol; for the pool only.
pub(crate) struct Blocking<S> {
    service: Arc<S>,
}

impl<S: Service> Blocking<S> {
    pub(crate) fn new(service: S) -> Self {
        Self {
            service: Arc::new(service),
        }
    }
}

impl<S: Service> Protocol for Blocking<S> {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn can_block(&self) -> bool {
        true
    }

    fn runs_to_its_end(&self) -> bool {
        true
    }

    fn open(&self, _connection: &Arc<Connection>, _waker: Option<Waker>) -> io::Result<Opened> {
        Ok(Box::new(BlockingSession {
            service: Arc::clone(&self.service),
        }))
    }
}

struct BlockingSession<S> {
    service: Arc<S>,
}

impl<S: Service> Session for BlockingSession<S> {
    fn step(&mut self, connection: &Connection, _turn: &mut Turn<'_>) -> Next {
        let served = self.service.serve(connection);
        connection.service_is_over();
        match served {
            Ok(()) => Next::Close(CloseReason::Finished),
            // The server ended it, and says why.
            Err(_) if connection.forced().is_some() => Next::Close(CloseReason::Stopping),
            Err(error) => {
                crate::limited!(notice, conn = connection.id(); "the service gave up: {error}");
                Next::Close(connection.reason_for(&error))
            }
        }
    }
}
