//! The legs of a port that may learn their peer's address, by the hosts that it may have.

use std::collections::HashMap;
use std::net::IpAddr;

use super::StreamId;

/// Legs by host; each under the one or two hosts that it may hear from.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_host: HashMap<IpAddr, Vec<StreamId>>,
}

impl Waiting {
    pub(super) fn insert(&mut self, id: StreamId, hosts: impl Iterator<Item = IpAddr>) {
        for host in hosts {
            self.by_host.entry(host).or_default().push(id);
        }
    }

    /// The leg waits no longer; with the same hosts as it was inserted.
    pub(super) fn remove(&mut self, id: StreamId, hosts: impl Iterator<Item = IpAddr>) {
        for host in hosts {
            if let Some(legs) = self.by_host.get_mut(&host) {
                legs.retain(|&other| other != id);
                if legs.is_empty() {
                    self.by_host.remove(&host);
                }
            }
        }
    }

    /// The legs that a packet from this host may be for.
    pub(super) fn expecting(&self, host: IpAddr) -> &[StreamId] {
        self.by_host.get(&host).map_or(&[], Vec::as_slice)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_host.is_empty()
    }
}
