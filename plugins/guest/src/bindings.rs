//! What wit-bindgen generates from the contract, one module for each world.
//!
//! A world's export is in its macro alone, so a component exports only the
//! world whose macro its author calls. Both worlds share one set of records.
#![allow(missing_docs, unreachable_pub, unused_qualifications)]

/// The world of blocking backends.
pub mod blocking {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "backend-blocking",
        pub_export_macro: true,
        export_macro_name: "export_world",
    });
}

/// The world of asynchronous backends.
pub mod asynchronous {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "backend",
        with: {
            "backhaul:backend/types@0.1.0": super::blocking::backhaul::backend::types,
        },
        pub_export_macro: true,
        export_macro_name: "export_world",
    });
}
