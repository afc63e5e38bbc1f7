<?php
echo mb_strtoupper("grüße"), " ", ini_get("memory_limit"), " ", fileowner(__FILE__), "\n";
