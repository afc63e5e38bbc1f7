import os
import text

found = sorted(os.path.relpath(os.path.join(d, f), "/repo") for d, _, fs in os.walk("/repo") for f in fs)
print(text.join("worker", *found))
