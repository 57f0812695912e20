//! The RTP family on octets, without a clock or a socket: RTP, telephone-event, RTCP, SRTP, and how good a call is.

pub mod packet;
pub mod quality;
pub mod rtcp;
pub mod srtp;
pub mod telephone_event;
