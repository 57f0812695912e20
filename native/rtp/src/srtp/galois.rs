//! AES in Galois/counter mode (RFC 7714).

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, KeyInit};
use zeroize::Zeroizing;

use super::SrtpError;
use super::keys::SessionKeys;
use super::transform::{ENCRYPTED, RTCP_CLEAR_LEN, Transform, WORD_LEN, split_word};

const TAG_LEN: usize = 16;
const SALT_LEN: usize = 12;
/// Clear octets and word of an encrypted RTCP packet.
const RTCP_ASSOCIATED_LEN: usize = RTCP_CLEAR_LEN + WORD_LEN;

/// Encryption and tag in one.
pub(super) struct Galois {
    cipher: Aes128Gcm,
    /// The session salt in the low 96 bits.
    salt: Zeroizing<u128>,
}

impl Galois {
    pub(super) fn new(keys: &SessionKeys) -> Self {
        let mut salt = [0; 16];
        salt[16 - SALT_LEN..].copy_from_slice(&keys.salt[..SALT_LEN]);
        Self {
            cipher: Aes128Gcm::new(&keys.cipher.into()),
            salt: Zeroizing::new(u128::from_be_bytes(salt)),
        }
    }

    /// SSRC and index over the salt (RFC 7714 sections 8.1 and 9.1, which differ in the index's width alone).
    fn nonce(&self, ssrc: u32, index: u64) -> [u8; SALT_LEN] {
        let nonce = (*self.salt ^ u128::from(ssrc) << 48 ^ u128::from(index)).to_be_bytes();
        std::array::from_fn(|i| nonce[16 - SALT_LEN + i])
    }

    fn seal(&self, nonce: [u8; SALT_LEN], associated: &[u8], text: &mut [u8], tag: &mut [u8]) {
        let sealed = self
            .cipher
            .encrypt_inout_detached(&nonce.into(), associated, text.into());
        // The cipher refuses 64 GiB and more; a datagram is far from that.
        if let Ok(sealed) = sealed {
            tag.copy_from_slice(&sealed);
        }
    }

    fn open(
        &self,
        nonce: [u8; SALT_LEN],
        associated: &[u8],
        text: &mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Result<(), SrtpError> {
        self.cipher
            .decrypt_inout_detached(&nonce.into(), associated, text.into(), &tag.into())
            .map_err(|_| SrtpError::Authentication)
    }
}

impl Transform for Galois {
    fn tag_len(&self) -> usize {
        TAG_LEN
    }

    fn seal_rtp(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) {
        let (packet, tag) = packet.split_at_mut(packet.len() - TAG_LEN);
        let (header, payload) = packet.split_at_mut(header_len);
        self.seal(self.nonce(ssrc, index), header, payload, tag);
    }

    fn open_rtp(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        let tag = last(packet);
        let sealed_len = packet.len() - TAG_LEN;
        let (header, payload) = packet[..sealed_len].split_at_mut(header_len);
        self.open(self.nonce(ssrc, index), header, payload, tag)
    }

    fn seal_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) {
        let word = (index | ENCRYPTED).to_be_bytes();
        let (packet, trailing_word) = packet.split_at_mut(packet.len() - WORD_LEN);
        trailing_word.copy_from_slice(&word);
        let (packet, tag) = packet.split_at_mut(packet.len() - TAG_LEN);
        let (clear, rest) = packet.split_at_mut(RTCP_CLEAR_LEN);
        self.seal(
            self.nonce(ssrc, u64::from(index)),
            &associated(clear, word),
            rest,
            tag,
        );
    }

    fn rtcp_word(&self, packet: &[u8]) -> [u8; WORD_LEN] {
        last(packet)
    }

    fn open_rtcp(&self, packet: &mut [u8], ssrc: u32) -> Result<(), SrtpError> {
        let word: [u8; WORD_LEN] = last(packet);
        let (encrypted, index) = split_word(word);
        let nonce = self.nonce(ssrc, u64::from(index));
        let tag_at = packet.len() - WORD_LEN - TAG_LEN;
        let tag = last(&packet[..tag_at + TAG_LEN]);
        if encrypted {
            let (clear, rest) = packet[..tag_at].split_at_mut(RTCP_CLEAR_LEN);
            return self.open(nonce, &associated(clear, word), rest, tag);
        }
        // All is associated data, the word too, and the cipher wants it in one piece: the tag makes way.
        packet[tag_at..tag_at + WORD_LEN].copy_from_slice(&word);
        let opened = self.open(nonce, &packet[..tag_at + WORD_LEN], &mut [], tag);
        packet[tag_at..tag_at + TAG_LEN].copy_from_slice(&tag);
        opened
    }
}

/// The octets in clear and the word, as if they were neighbours (RFC 7714 section 9.2).
fn associated(clear: &[u8], word: [u8; WORD_LEN]) -> [u8; RTCP_ASSOCIATED_LEN] {
    let mut out = [0; RTCP_ASSOCIATED_LEN];
    out[..RTCP_CLEAR_LEN].copy_from_slice(clear);
    out[RTCP_CLEAR_LEN..].copy_from_slice(&word);
    out
}

/// The last octets of a packet whose length was checked.
fn last<const N: usize>(packet: &[u8]) -> [u8; N] {
    let at = packet.len() - N;
    std::array::from_fn(|i| packet[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7714 sections 16 and 17: session key 00..0f, session salt "Quid pro quo".
    const RTP: &str = "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e69732064697669736120696e20706172746573\
                       2074726573";
    const SRTP: &str = "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36\
                        de3adf8833899d7f27beb16a9152cf765ee4390cce";
    const RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdea\
                        dbeefdeadbeef";
    const SRTCP: &str = "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686\
                         303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4";
    const SRTCP_CLEAR: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefde\
                               adbeefdeadbeefdeadbeef841dd9683dd78ec92ae58790125f62b3000005d4";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    fn galois() -> Galois {
        Galois::new(&SessionKeys {
            cipher: std::array::from_fn(|i| i as u8),
            auth: [0; 20],
            salt: *b"Quid pro quo\0\0",
        })
    }

    #[test]
    fn nonces_of_the_rfc() {
        let nonce = |ssrc, index| galois().nonce(ssrc, index).to_vec();
        assert_eq!(nonce(0x5501_a0b2, 0xf17b), hex("51753c6580c2726f20718414"));
        assert_eq!(nonce(0x4d61_7273, 0x5d4), hex("517524055203726f207170bb"));
    }

    #[test]
    fn rtp_of_the_rfc() {
        let mut packet = hex(RTP);
        packet.resize(packet.len() + TAG_LEN, 0xaa);
        galois().seal_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b);
        assert_eq!(packet, hex(SRTP));
        assert_eq!(galois().open_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b), Ok(()));
        assert_eq!(packet[..packet.len() - TAG_LEN], hex(RTP));
    }

    #[test]
    fn rtcp_of_the_rfc() {
        let mut packet = hex(RTCP);
        packet.resize(packet.len() + TAG_LEN + WORD_LEN, 0xaa);
        galois().seal_rtcp(&mut packet, 0x4d61_7273, 0x5d4);
        assert_eq!(packet, hex(SRTCP));
        assert_eq!(galois().open_rtcp(&mut packet, 0x4d61_7273), Ok(()));
        assert_eq!(packet[..packet.len() - TAG_LEN - WORD_LEN], hex(RTCP));
    }

    /// Sections 17.3 and 17.4: authentic, not encrypted.
    #[test]
    fn rtcp_in_clear_of_the_rfc() {
        let mut packet = hex(SRTCP_CLEAR);
        assert_eq!(galois().open_rtcp(&mut packet, 0x4d61_7273), Ok(()));
        assert_eq!(packet, hex(SRTCP_CLEAR));
        for octet in 0..packet.len() {
            let mut changed = packet.clone();
            changed[octet] ^= 1;
            let refused = changed.clone();
            let opened = galois().open_rtcp(&mut changed, 0x4d61_7273);
            assert_eq!(opened, Err(SrtpError::Authentication), "octet {octet}");
            assert_eq!(changed, refused);
        }
    }

    /// Sections 16.1.3 and 16.1.4: the whole packet as associated data.
    #[test]
    fn a_tag_alone() {
        let mut tag = [0; TAG_LEN];
        let galois = galois();
        galois.seal(galois.nonce(0x5501_a0b2, 0xf17b), &hex(RTP), &mut [], &mut tag);
        assert_eq!(tag[..], hex("22493f82d2bce397e9d79e3b19aa4216"));
    }
}
