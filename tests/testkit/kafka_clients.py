"""Two clients of Kafka that share no code, each on a round of messages."""

from __future__ import annotations

import asyncio

import confluent_kafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

MESSAGES = [f"message {i}".encode() for i in range(50)]
LARGE = b"x" * 900_000


async def aiokafka_round(bootstrap: str) -> list[bytes]:
    """Sends many at once, and reads them in a group."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, client_id="orders-7") as producer:
        sent = [await producer.send("many", message, partition=0) for message in MESSAGES]
        await asyncio.gather(*sent)
    consumer = AIOKafkaConsumer(
        "many", bootstrap_servers=bootstrap, group_id="readers", auto_offset_reset="earliest"
    )
    async with consumer:
        return [(await consumer.getone()).value for _ in MESSAGES]


def librdkafka_round(bootstrap: str, topic: str, client: str) -> list[bytes]:
    """Sends a large message between small ones, and reads them without a group."""
    failures: list[object] = []
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": bootstrap,
            "client.id": client,
            "message.timeout.ms": 60_000,
            "queue.buffering.max.ms": 0,
        }
    )
    for message in (b"before", LARGE, b"after"):
        producer.produce(
            topic, message, partition=0, on_delivery=lambda why, _: failures.append(why)
        )
    assert producer.flush(65) == 0
    assert failures == [None, None, None]
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": bootstrap, "client.id": client, "group.id": "-"}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    values: list[bytes] = []
    while len(values) < 3:
        [received] = consumer.consume(1, 60)
        assert received.error() is None
        values.append(received.value() or b"")
    consumer.close()
    return values
