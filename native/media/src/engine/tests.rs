//! The engine when something goes wrong in it, on sockets of the loopback interface.

use std::net::Ipv4Addr;
use std::sync::mpsc::channel;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::stream::StreamEvent;

const PARAMS: StreamParams = StreamParams {
    speech: None,
    media_timeout_ms: 0,
    report_activity: false,
    ssrc: 1,
    first_sequence: 1,
    first_timestamp: 1,
};
const FORMAT: Format = Format {
    codec: Codec::Pcmu,
    payload_type: 0,
    telephone_event: None,
    comfort_noise: None,
    send: false,
    receive: true,
};

fn engine(threads: usize, max_streams: usize) -> Engine {
    let config = EngineConfig {
        host: Ipv4Addr::LOCALHOST.into(),
        first_port: 0,
        port_count: threads,
        threads,
        realtime: false,
        public_addresses: Vec::new(),
        max_streams,
        event_capacity: 64,
        model: None,
    };
    Engine::start(&config).unwrap()
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn open(engine: &Engine, port: u16) -> Result<StreamId, EngineError> {
    let opened = engine.open(Some(address(port)), None, None, 1000, PARAMS);
    opened.map(|(id, _)| id)
}

/// Wait until the descriptor of the events is readable, and take them.
fn awaited(engine: &Engine) -> Vec<LegEvent> {
    let patience = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let mut waiting = [PollFd::new(&engine.events, PollFlags::IN)];
    assert_eq!(poll(&mut waiting, Some(&patience)).unwrap(), 1, "no event came");
    engine.drain()
}

#[test]
fn a_thread_that_fails_ends_its_own_streams_and_no_others() {
    let engine = engine(2, 4);
    let streams: Vec<StreamId> = (1..=4).map(|port| open(&engine, port).unwrap()).collect();
    assert!(matches!(open(&engine, 5), Err(EngineError::TooMany(4))));
    let (fallen, rest): (Vec<_>, Vec<_>) = streams.iter().partition(|&&id| id % 2 == streams[0] % 2);
    engine
        .send(
            fallen[0],
            Command::Do(Box::new(|| panic!("as the test wants it"))),
        )
        .unwrap();

    let expected: Vec<LegEvent> = fallen.iter().map(|&id| (id, StreamEvent::Failed)).collect();
    assert_eq!(awaited(&engine), expected);
    assert!(engine.is_alive());
    assert_eq!(engine.failed_threads(), 1);
    for &id in &fallen {
        let unknown = engine.connect(id, address(1), FORMAT, None, None);
        assert!(
            matches!(unknown, Err(EngineError::UnknownStream(_))),
            "{unknown:?}"
        );
        assert!(engine.close_stream(id).is_err());
    }
    for &id in &rest {
        assert!(engine.stream_stats(id).is_ok(), "the other thread answers");
    }
    // The places are free, on the thread that runs.
    for port in [11, 12] {
        assert_eq!(open(&engine, port).unwrap() % 2, rest[0] % 2);
    }
    assert!(matches!(open(&engine, 13), Err(EngineError::TooMany(4))));
    for &id in &rest {
        engine.close_stream(id).unwrap();
    }
    engine.close();
}

#[test]
fn an_engine_whose_only_thread_fails_is_closed() {
    let engine = engine(1, 4);
    let id = open(&engine, 1).unwrap();
    engine
        .send(id, Command::Do(Box::new(|| panic!("as the test wants it"))))
        .unwrap();
    assert_eq!(awaited(&engine), [(id, StreamEvent::Failed)]);
    assert!(!engine.is_alive());
    assert!(matches!(open(&engine, 2), Err(EngineError::Closed)));
}

#[test]
fn a_connection_that_the_thread_has_no_room_for_changes_nothing() {
    let engine = engine(1, 4);
    let id = open(&engine, 1).unwrap();
    let (resume, wait) = channel::<()>();
    let (began, begins) = channel();
    let stall = move || {
        began.send(()).unwrap();
        let _ = wait.recv();
    };
    engine.send(id, Command::Do(Box::new(stall))).unwrap();
    begins.recv().unwrap();
    while engine.flush(id).is_ok() {}
    let refused = engine.connect(id, address(2), FORMAT, None, None);
    assert!(matches!(refused, Err(EngineError::Busy)), "{refused:?}");
    assert_eq!(lock(&engine.shard(id).table).remote(id), Some(address(1)));
    resume.send(()).unwrap();
    // An answer comes behind all that waited.
    while engine.stream_stats(id).is_err() {
        std::thread::yield_now();
    }
    engine.connect(id, address(2), FORMAT, None, None).unwrap();
    assert_eq!(lock(&engine.shard(id).table).remote(id), Some(address(2)));
}
