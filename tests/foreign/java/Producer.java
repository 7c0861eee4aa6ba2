import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.core.message.Encoding;
import io.cloudevents.jackson.JsonCloudEventData;
import io.cloudevents.jackson.JsonFormat;
import io.cloudevents.kafka.CloudEventSerializer;
import io.cloudevents.kafka.PartitionKeyExtensionInterceptor;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The producer in Java: sends the records of a plan with kafka-clients, and prints the position of each. */
public class Producer {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String BATCH_JSON = "application/cloudevents-batch+json";

    private final String servers;
    private final Map<String, KafkaProducer<Object, CloudEvent>> ofEvents = new HashMap<>();
    private final Map<String, KafkaProducer<Object, byte[]>> ofBytes = new HashMap<>();

    Producer(String servers) {
        this.servers = servers;
    }

    public static void main(String[] arguments) throws Exception {
        Producer producer = new Producer(arguments[0]);
        try (var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                producer.send(JSON.readTree(line));
            }
        }
        producer.close();
    }

    void send(JsonNode order) throws IOException {
        String form = order.get("form").asText();
        String content = order.get("content").asText();
        boolean asEvent = form.equals("binary") || form.equals("structured");
        if (asEvent && (content.equals("event") || content.equals("none"))) {
            sendEvent(order, form);
        } else {
            sendBytes(order, form, content);
        }
    }

    /** Send what the SDK's serializer makes of an event; its interceptor takes the key from an extension. */
    private void sendEvent(JsonNode order, String form) throws IOException {
        String codec = order.get("codec").asText();
        boolean base64 = order.get("base64").asBoolean();
        KafkaProducer<Object, CloudEvent> client =
                ofEvents.computeIfAbsent(form + codec + base64, name -> eventClient(form, codec, base64));
        client.send(
                new ProducerRecord<>(topic(order), order.get("partition").asInt(), null, cloudEvent(order)),
                printed(order));
    }

    private void sendBytes(JsonNode order, String form, String content) throws IOException {
        String codec = order.get("codec").asText();
        KafkaProducer<Object, byte[]> client = ofBytes.computeIfAbsent(codec, name -> byteClient(codec));
        String key = order.get("key").isNull() ? null : order.get("key").asText();
        byte[] value = content.equals("null") ? null : cut(encoded(order, form, content), content);
        var made = new ProducerRecord<Object, byte[]>(topic(order), order.get("partition").asInt(), key, value);
        if (content.equals("batch")) {
            made.headers().add("content-type", BATCH_JSON.getBytes(StandardCharsets.UTF_8));
        } else if (form.equals("named")) { // the schema's id in a header, as a magic byte and a GUID
            byte[] guid = "\u00010123456789abcdef".getBytes(StandardCharsets.US_ASCII);
            made.headers().add("__value_schema_id", guid);
        }
        client.send(made, printed(order));
    }

    private static byte[] encoded(JsonNode order, String form, String content) throws IOException {
        if (content.equals("batch")) {
            String one = new String(format(order).serialize(cloudEvent(order)), StandardCharsets.UTF_8);
            return ("[" + one + "," + one + "]").getBytes(StandardCharsets.UTF_8);
        }
        return switch (form) {
            case "plain", "binary", "named" -> JSON.writeValueAsBytes(order.get("data"));
            case "structured" -> format(order).serialize(cloudEvent(order));
            case "framed" -> framed(order.get("schema_id").asInt(), JSON.writeValueAsBytes(order.get("data")));
            default -> throw new IllegalArgumentException(form);
        };
    }

    private static byte[] cut(byte[] value, String content) {
        return switch (content) {
            case "empty" -> new byte[0];
            case "cut" -> Arrays.copyOf(value, value.length / 2);
            case "head" -> Arrays.copyOf(value, 5);
            default -> value;
        };
    }

    private static byte[] framed(int id, byte[] document) throws IOException {
        var out = new ByteArrayOutputStream();
        out.write(0);
        out.write(ByteBuffer.allocate(4).putInt(id).array());
        out.write(document);
        return out.toByteArray();
    }

    private static JsonFormat format(JsonNode order) {
        JsonFormat format = new JsonFormat();
        return order.get("base64").asBoolean() ? format.withForceJsonDataToBase64() : format;
    }

    private static CloudEvent cloudEvent(JsonNode order) throws IOException {
        var builder = CloudEventBuilder.v1();
        for (var each : ((ObjectNode) order.get("attributes")).properties()) {
            JsonNode value = each.getValue();
            if (value.isNull()) {
                continue;
            }
            switch (each.getKey()) {
                case "id" -> builder.withId(value.asText());
                case "source" -> builder.withSource(URI.create(value.asText()));
                case "type" -> builder.withType(value.asText());
                case "subject" -> builder.withSubject(value.asText());
                case "time" -> builder.withTime(OffsetDateTime.parse(value.asText()));
                default -> extend(builder, each.getKey(), value);
            }
        }
        if (!order.get("content").asText().equals("none")) {
            addData(builder, order.get("data"), order.get("content_type"));
        }
        return builder.build();
    }

    private static void extend(io.cloudevents.core.v1.CloudEventBuilder builder, String name, JsonNode value) {
        if (value.isBoolean()) {
            builder.withExtension(name, value.asBoolean());
        } else if (value.isInt()) {
            builder.withExtension(name, value.asInt());
        } else {
            builder.withExtension(name, value.asText());
        }
    }

    private static void addData(io.cloudevents.core.v1.CloudEventBuilder builder, JsonNode data, JsonNode type)
            throws IOException {
        if (type.isNull()) {
            builder.withData(JSON.writeValueAsBytes(data));
        } else if (type.asText().startsWith("text/")) {
            builder.withData(type.asText(), data.asText().getBytes(StandardCharsets.UTF_8));
        } else if (type.asText().equals("application/json")) {
            builder.withData(type.asText(), JsonCloudEventData.wrap(data));
        } else {
            builder.withData(type.asText(), JSON.writeValueAsBytes(data));
        }
    }

    private KafkaProducer<Object, CloudEvent> eventClient(String form, String codec, boolean base64) {
        Map<String, Object> options = options(codec);
        boolean structured = form.equals("structured");
        options.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, CloudEventSerializer.class);
        options.put(ProducerConfig.INTERCEPTOR_CLASSES_CONFIG, PartitionKeyExtensionInterceptor.class.getName());
        options.put(CloudEventSerializer.ENCODING_CONFIG, structured ? Encoding.STRUCTURED : Encoding.BINARY);
        if (structured) {
            JsonFormat format = new JsonFormat();
            options.put(
                    CloudEventSerializer.EVENT_FORMAT_CONFIG,
                    base64 ? format.withForceJsonDataToBase64() : format);
        }
        return new KafkaProducer<>(options);
    }

    private KafkaProducer<Object, byte[]> byteClient(String codec) {
        Map<String, Object> options = options(codec);
        options.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class);
        return new KafkaProducer<>(options);
    }

    private Map<String, Object> options(String codec) {
        Map<String, Object> options = new HashMap<>();
        options.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        options.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        options.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, codec);
        options.put(ProducerConfig.LINGER_MS_CONFIG, 20);
        return options;
    }

    private static String topic(JsonNode order) {
        return order.get("topic").asText();
    }

    private static Callback printed(JsonNode order) {
        return (done, error) -> {
            if (error != null) {
                error.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
            ObjectNode position = JSON.createObjectNode().put("number", order.get("number").asInt());
            position.put("topic", done.topic()).put("partition", done.partition()).put("offset", done.offset());
            System.out.println(position);
        };
    }

    private void close() {
        ofEvents.values().forEach(KafkaProducer::close);
        ofBytes.values().forEach(KafkaProducer::close);
    }
}
