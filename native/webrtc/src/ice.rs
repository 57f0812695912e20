//! The ICE credentials of a leg, from randomness that the caller gives.

use str0m::IceCreds;

/// Randomness for one set of ICE credentials, from a generator fit for secrets.
///
/// `str0m` would draw them from a generator that is not (RFC 8445 section 5.3 asks for a password that cannot
/// be guessed: whoever knows it can take over where the call is sent).
#[derive(Clone, Copy)]
pub struct IceSeed(pub [u8; IceSeed::LEN]);

/// The ice-char of RFC 8839 section 5.4: one for each 6 bits.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// 48 bits: two legs of one server share a fragment about never.
const UFRAG_LEN: usize = 8;
/// 192 bits, where RFC 8445 asks for 128.
const PASSWORD_LEN: usize = 32;

impl IceSeed {
    /// Octets: one for each character.
    pub const LEN: usize = UFRAG_LEN + PASSWORD_LEN;

    pub(crate) fn credentials(&self) -> IceCreds {
        let text: String = self
            .0
            .iter()
            .map(|octet| char::from(ICE_CHARS[usize::from(octet & 63)]))
            .collect();
        let (ufrag, pass) = text.split_at(UFRAG_LEN);
        IceCreds {
            ufrag: ufrag.to_owned(),
            pass: pass.to_owned(),
        }
    }
}

impl std::fmt::Debug for IceSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IceSeed(..)")
    }
}
