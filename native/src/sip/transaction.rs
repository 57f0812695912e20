//! The transaction layer, and what its transactions want done.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pyo3::prelude::*;
use sipx_sip::transaction::{Dispatch, Reason};
use sipx_sip::{
    Header, HeaderName, Headers, Limits, Message, Output, Reliability, Timer, Timers, TransactionKey,
    TransactionLayer, TuEvent, Via, parse_datagram,
};

use super::message::SipMessage;
use super::{limits, refused, text};

const TIMERS: [(&str, Timer); 13] = [
    ("A", Timer::A),
    ("B", Timer::B),
    ("D", Timer::D),
    ("E", Timer::E),
    ("F", Timer::F),
    ("G", Timer::G),
    ("H", Timer::H),
    ("I", Timer::I),
    ("J", Timer::J),
    ("K", Timer::K),
    ("L", Timer::L),
    ("M", Timer::M),
    ("Trying100", Timer::Trying100),
];

/// Far beyond what a peer may send us.
const OWN_BYTES_MAX: usize = 4 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Read a message of our own. What we answer was within the limits, and the answer is a little longer.
fn own(data: &[u8]) -> PyResult<Message> {
    let generous = Limits {
        max_headers: 1024,
        max_header_bytes: OWN_BYTES_MAX,
        ..limits(OWN_BYTES_MAX, Limits::datagram())
    };
    parse_datagram(Bytes::copy_from_slice(data), &generous).map_err(refused)
}

/// Names a transaction.
#[pyclass(frozen, module = "mediaserver._native")]
pub(super) struct SipKey {
    key: TransactionKey,
}

#[pymethods]
impl SipKey {
    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        hasher.finish()
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

/// Something that a transaction wants done.
#[pyclass(frozen, get_all, module = "mediaserver._native")]
pub(super) struct SipOutput {
    kind: &'static str,
    data: Option<Vec<u8>>,
    message: Option<Py<SipMessage>>,
    timer: Option<&'static str>,
    after_ms: Option<u64>,
}

fn output(py: Python<'_>, output: Output) -> PyResult<Option<SipOutput>> {
    let plain = |kind| SipOutput {
        kind,
        data: None,
        message: None,
        timer: None,
        after_ms: None,
    };
    let told = |kind, message| -> PyResult<SipOutput> {
        Ok(SipOutput {
            message: Some(Py::new(py, SipMessage { message })?),
            ..plain(kind)
        })
    };
    Ok(Some(match output {
        Output::Send(message) => SipOutput {
            data: Some(message.to_bytes().to_vec()),
            ..plain("send")
        },
        Output::SetTimer { timer, after } => SipOutput {
            timer: Some(timer_name(timer)),
            after_ms: Some(after.as_millis().try_into().unwrap_or(u64::MAX)),
            ..plain("set_timer")
        },
        Output::ClearTimer(timer) => SipOutput {
            timer: Some(timer_name(timer)),
            ..plain("clear_timer")
        },
        Output::ToTu(event) => match *event {
            TuEvent::Request(request) => told("request", Message::Request(*request))?,
            TuEvent::Response(response) => told("response", Message::Response(*response))?,
            TuEvent::Ack(request) => told("ack", Message::Request(*request))?,
            TuEvent::Timeout => plain("timeout"),
            TuEvent::TransportError => plain("transport_error"),
            _ => return Ok(None),
        },
        Output::Terminated(Reason::Completed | Reason::Timeout | Reason::TransportError) => {
            plain("terminated")
        }
        _ => return Ok(None),
    }))
}

fn outputs(py: Python<'_>, list: Vec<Output>) -> PyResult<Vec<SipOutput>> {
    list.into_iter()
        .filter_map(|one| output(py, one).transpose())
        .collect()
}

fn timer_name(timer: Timer) -> &'static str {
    TIMERS
        .iter()
        .find(|(_, known)| *known == timer)
        .map_or("?", |(name, _)| name)
}

fn reliability(reliable: bool) -> Reliability {
    if reliable {
        Reliability::Reliable
    } else {
        Reliability::Unreliable
    }
}

/// Add what the topmost Via of a received request lacks: where it really came from.
fn note_source(headers: &mut Headers, source: IpAddr, port: u16) -> PyResult<()> {
    let Some(Ok(via)) = headers.typed::<Via>() else {
        return Ok(());
    };
    let Some(row) = headers.value(&HeaderName::Via).map(|value| text(&value)) else {
        return Ok(());
    };
    let (top, rest) = row.split_at(sipx_sip::headers::first_hop_end(row.as_bytes()));
    // Whatever the sender claims about its own address is replaced: answers go where the request came from.
    let mut noted: Vec<String> = Vec::new();
    for part in top.trim_end().split(';') {
        let name = part.split('=').next().unwrap_or_default().trim();
        if name.eq_ignore_ascii_case("rport") {
            noted.push(format!("rport={port}"));
        } else if !name.eq_ignore_ascii_case("received") {
            noted.push(part.to_owned());
        }
    }
    let stated = text(&via.host.to_bytes());
    if via.rport().is_some() || stated.trim_matches(['[', ']']) != source.to_string() {
        noted.push(format!("received={source}"));
    }
    let header = Header::build(HeaderName::Via, noted.join(";") + rest).map_err(refused)?;
    headers.remove_first(&HeaderName::Via);
    headers.push_front(header);
    Ok(())
}

type Received = (&'static str, Option<SipKey>, Option<SipMessage>, Vec<SipOutput>);

/// The transactions in flight (RFC 3261 17, RFC 6026), sans-IO.
#[pyclass(frozen, module = "mediaserver._native")]
pub(super) struct SipTransactions {
    layer: Mutex<TransactionLayer>,
}

#[pymethods]
impl SipTransactions {
    #[new]
    #[pyo3(signature = (*, t1_ms=500, t2_ms=4000, t4_ms=5000))]
    fn new(t1_ms: u64, t2_ms: u64, t4_ms: u64) -> Self {
        let timers = Timers {
            t1: Duration::from_millis(t1_ms),
            t2: Duration::from_millis(t2_ms),
            t4: Duration::from_millis(t4_ms),
        };
        Self {
            layer: Mutex::new(TransactionLayer::new(timers)),
        }
    }

    /// Take a message from the network: ("created" | "matched" | "unmatched", key, the unmatched message, outputs).
    fn receive(
        &self,
        py: Python<'_>,
        message: &SipMessage,
        source: &str,
        port: u16,
        reliable: bool,
    ) -> PyResult<Received> {
        let mut message = message.message.clone();
        if let Message::Request(request) = &mut message {
            // An IPv6 zone is ours, not the peer's.
            let source = source
                .split('%')
                .next()
                .unwrap_or(source)
                .parse()
                .map_err(refused)?;
            note_source(&mut request.headers, source, port)?;
        }
        let dispatch = lock(&self.layer).receive(message, reliability(reliable));
        Ok(match dispatch {
            Dispatch::Created { key, outputs: list } => {
                ("created", Some(SipKey { key }), None, outputs(py, list)?)
            }
            Dispatch::Matched { key, outputs: list } => {
                ("matched", Some(SipKey { key }), None, outputs(py, list)?)
            }
            Dispatch::Unmatched(message) => {
                ("unmatched", None, Some(SipMessage { message: *message }), vec![])
            }
        })
    }

    /// Start a client transaction for an encoded request.
    fn send_request(
        &self,
        py: Python<'_>,
        data: &[u8],
        reliable: bool,
    ) -> PyResult<(SipKey, Vec<SipOutput>)> {
        let Message::Request(request) = own(data)? else {
            return Err(refused("a response cannot start a transaction"));
        };
        let (key, list) = lock(&self.layer)
            .send_request(request, reliability(reliable))
            .ok_or_else(|| refused("the request has no Via with a branch"))?;
        Ok((SipKey { key }, outputs(py, list)?))
    }

    /// Answer a server transaction with an encoded response.
    fn send_response(&self, py: Python<'_>, key: &SipKey, data: &[u8]) -> PyResult<Vec<SipOutput>> {
        let Message::Response(response) = own(data)? else {
            return Err(refused("a request cannot answer a transaction"));
        };
        let list = lock(&self.layer).send_response(&key.key, response);
        outputs(py, list)
    }

    /// A timer has fired.
    fn on_timer(&self, py: Python<'_>, key: &SipKey, timer: &str) -> PyResult<Vec<SipOutput>> {
        let (_, timer) = TIMERS
            .iter()
            .find(|(name, _)| *name == timer)
            .ok_or_else(|| refused(format!("{timer:?} is no transaction timer")))?;
        let list = lock(&self.layer).on_timer(&key.key, *timer);
        outputs(py, list)
    }

    /// The transport could not deliver.
    fn on_transport_error(&self, py: Python<'_>, key: &SipKey) -> PyResult<Vec<SipOutput>> {
        let list = lock(&self.layer).on_transport_error(&key.key);
        outputs(py, list)
    }

    /// Forget a server transaction that was never answered.
    fn abandon(&self, key: &SipKey) -> bool {
        lock(&self.layer).abandon(&key.key)
    }

    /// The key of the INVITE that a CANCEL names.
    #[staticmethod]
    fn cancelled(cancel: &SipMessage) -> Option<SipKey> {
        let request = cancel.message.as_request()?;
        TransactionKey::for_cancelled_invite(request).map(|key| SipKey { key })
    }

    /// Transactions in flight: (client, server).
    fn counts(&self) -> (usize, usize) {
        lock(&self.layer).len()
    }
}
