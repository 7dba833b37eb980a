"""The gRPC channel's settings, the retry policy among them: one for both clients."""

import json

FIRST_WAIT = "0.2s"  # then twice as long each time, give or take a fifth
MAX_RETRIES = 4  # gRPC makes no more than five attempts
# The budget of retries, which all calls to a server share: an UNAVAILABLE takes one of its tokens,
# an answer gives back a tenth, and nothing is repeated while half of them or more are gone. Half of
# 100 is a full round for eight calls at once (four retries each), as while a server starts anew. A
# server that stays full gets, beyond them, one repetition per ten answers.
TOKENS = 100
TOKENS_PER_ANSWER = 0.1


def channel_arguments(retries: int) -> list[tuple[str, object]]:
    """Channel arguments that let gRPC itself repeat calls that end in UNAVAILABLE.

    Of these the calls for an inference, and for a model's metadata, which may precede the first.

    That is what an unreachable server, a full queue and a model that is not loaded answer, and the
    request did nothing. A call's deadline covers all attempts and the waits between them. `retries`
    is 0..4. The budget is gRPC's retry throttling: once it is used up, a call fails at its first
    UNAVAILABLE.
    """
    if not 0 <= retries <= MAX_RETRIES:
        raise ValueError(f"retries: {retries} is not in 0..{MAX_RETRIES}")
    arguments: list[tuple[str, object]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # After a failed connection gRPC refuses calls until it tries again, by default up to two
        # minutes later: no retry would reach a server that has come back.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if retries:
        policy = {
            "maxAttempts": retries + 1,
            "initialBackoff": FIRST_WAIT,
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        methods = [
            {"service": "inference.GRPCInferenceService", "method": method}
            for method in ("ModelInfer", "ModelMetadata")
        ]
        config = {
            "methodConfig": [{"name": methods, "retryPolicy": policy}],
            "retryThrottling": {"maxTokens": TOKENS, "tokenRatio": TOKENS_PER_ANSWER},
        }
        arguments += [
            ("grpc.service_config", json.dumps(config)),
            # The default, 256 KiB, silently leaves larger requests without retries.
            ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),
        ]
    return arguments
