#!/bin/bash
exec java ${KAFKA_HEAP_OPTS:--Xmx256m} -XX:+UseSerialGC -Dlog4j2.configurationFile=/etc/kafka/docker/tools-log4j2.yaml \
  -cp "$(dirname "$(dirname "$0")")/libs/*" "$@"
