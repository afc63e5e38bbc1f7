//! How long to wait before a request is tried again, and when to give up.

use std::time::Duration;

use super::RegistryError;
use super::client::Client;
use super::error::Recovery;
use super::transfer;

/// The pauses between tries, and when they are enough.
pub(super) struct Pause<'a> {
    client: &'a Client,
    next: Duration,
    spent: Duration,
}

impl<'a> Pause<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Self { client, next: client.config().retry.first, spent: Duration::ZERO }
    }

    /// Waits, or returns the error when trying again can't help or was tried enough.
    pub(super) fn before_retry(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let retry = self.client.config().retry;
        let patience = match error.recovery() {
            Recovery::Never => return Err(error),
            Recovery::Unreachable => retry.patience_unreachable,
            Recovery::InPassing => retry.patience,
        };
        if self.spent + self.next > patience {
            return Err(error);
        }
        if !transfer::pause(self.next, &self.client.config().ends()) {
            return Err(RegistryError::Interrupted);
        }
        self.spent += self.next;
        self.next = (self.next * 2).min(retry.longest);
        Ok(())
    }
}
