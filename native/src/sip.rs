//! `sipx-sip` for Python: messages, stream framing and the transaction layer. No logic beyond translation, and the
//! `received` and `rport` that a server's transport adds to the topmost `Via` (RFC 3261 18.2.1, RFC 3581 4).

mod message;
mod transaction;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use sipx_sip::Limits;

use message::{SipMessage, SipStreamParser, sip_uri_parts};
use transaction::{SipKey, SipOutput, SipTransactions};

create_exception!(
    mediaserver._native,
    SipParseError,
    PyException,
    "Bytes that are no SIP message."
);

fn refused(error: impl std::fmt::Display) -> PyErr {
    SipParseError::new_err(error.to_string())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn limits(max_message_bytes: usize, base: Limits) -> Limits {
    Limits {
        max_message_bytes,
        max_body_bytes: max_message_bytes,
        ..base
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("SipParseError", module.py().get_type::<SipParseError>())?;
    module.add_class::<SipMessage>()?;
    module.add_class::<SipStreamParser>()?;
    module.add_class::<SipKey>()?;
    module.add_class::<SipOutput>()?;
    module.add_class::<SipTransactions>()?;
    module.add_function(wrap_pyfunction!(sip_uri_parts, module)?)?;
    Ok(())
}
