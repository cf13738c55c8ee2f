// Reads error messages as a Dubbo client does: each line of the input is a serialization's name and
// the body of a reply in hexadecimal; prints what readUTF makes of it.
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.InputStreamReader;
import org.apache.dubbo.common.URL;
import org.apache.dubbo.common.extension.ExtensionLoader;
import org.apache.dubbo.common.serialize.Serialization;

public class Reads {
  public static void main(String[] args) throws Exception {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String[] parts = line.split(" ");
      byte[] body = new byte[parts[1].length() / 2];
      for (int i = 0; i < body.length; i++) {
        body[i] = (byte) Integer.parseInt(parts[1].substring(2 * i, 2 * i + 2), 16);
      }
      String text;
      try {
        text = ExtensionLoader.getExtensionLoader(Serialization.class).getExtension(parts[0])
            .deserialize(URL.valueOf("dubbo://127.0.0.1:1"), new ByteArrayInputStream(body))
            .readUTF();
      } catch (Throwable t) {
        text = "FAILED " + t;
      }
      System.out.println(parts[0] + ": " + text);
    }
  }
}
